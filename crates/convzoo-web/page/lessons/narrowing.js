// What a 5×5 convolution costs, directly and through a bottleneck of 1×1.
import { labelled, make } from '../dom.js';
import { t } from '../words.js';

const [PIXELS, INPUTS, OUTPUTS, TAPS] = [28 * 28, 192, 32, 25];

export function narrowing() {
  const channels = make('input', { type: 'range', min: 1, max: 192, value: 16, oninput: draw });
  const number = make('output');
  const told = make('p', { class: 'sum', 'aria-live': 'polite' });
  function draw() {
    const width = channels.valueAsNumber;
    const direct = PIXELS * TAPS * INPUTS * OUTPUTS;
    const narrow = PIXELS * (INPUTS * width + TAPS * width * OUTPUTS);
    number.textContent = width;
    const millions = count => (count / 1e6).toFixed(1);
    told.textContent = t(narrow < direct ? 'costs' : 'costsMore',
      { direct: millions(direct), narrow: millions(narrow), times: (direct / narrow).toFixed(1) });
  }
  draw();
  return make('div', {}, make('div', { class: 'row' }, labelled(t('bottleneck'), channels), number), told);
}
