// What a filter's edges are: nine numbers that the reader changes, on the image that the network sees.
import { button, make, most, paint } from './dom.js';
import { t } from './words.js';

const KERNELS = {
  vertical: [1, 0, -1, 1, 0, -1, 1, 0, -1],
  horizontal: [1, 1, 1, 0, 0, 0, -1, -1, -1],
  blur: Array(9).fill(0.1111),
  sharpen: [0, -1, 0, -1, 5, -1, 0, -1, 0],
};

export function kernel(client) {
  const inputs = KERNELS.vertical.map((weight, i) => make('input', {
    type: 'number', step: 'any', value: weight, oninput: refresh,
    'aria-label': t('weightOf', { row: Math.floor(i / 3) + 1, column: i % 3 + 1 }),
  }));
  const canvas = make('canvas', { class: 'close', role: 'img', 'aria-label': t('filtered') });
  const set = name => { inputs.forEach((input, i) => { input.value = KERNELS[name][i]; }); refresh(); };
  const rows = [0, 3, 6].map(first => make('tr', {}, ...inputs.slice(first, first + 3).map(input => make('td', {}, input))));
  const element = make('section', {}, make('h2', {}, t('kernel')), make('p', { class: 'soft' }, t('kernelTold')),
    make('div', { class: 'together' },
      make('div', {}, make('table', { class: 'kernel' }, ...rows),
        make('div', { class: 'row' }, ...Object.keys(KERNELS).map(name => button(t(name), () => set(name))))),
      canvas));

  async function refresh() {
    const weights = inputs.map(input => Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : 0);
    const { text, values } = await client.ask({ ask: 'convolve', kernel: weights });
    paint(canvas, values, text.size, most(values));
  }
  return { element, refresh };
}
