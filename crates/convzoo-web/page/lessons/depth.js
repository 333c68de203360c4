// A signal through twenty layers, with and without shortcuts.
import { labelled, make, short } from '../dom.js';
import { t } from '../words.js';

const LAYERS = 20, WIDTH = 320, HEIGHT = 140;

export function depth() {
  const factor = make('input', { type: 'range', min: -0.5, max: 1.5, step: 0.05, value: 0.5, oninput: draw });
  const number = make('output');
  const canvas = make('canvas', { class: 'close', width: WIDTH, height: HEIGHT, role: 'img', 'aria-label': t('lesson_residual'), style: 'image-rendering: auto' });
  const told = make('p', { class: 'sum', 'aria-live': 'polite' });

  // On a scale of logarithms, from a millionth to ten thousand.
  const height = value => HEIGHT * (1 - (Math.log10(Math.max(Math.abs(value), 1e-6)) + 6) / 10);

  function draw() {
    const scale = factor.valueAsNumber;
    const plain = Array.from({ length: LAYERS + 1 }, (_, layer) => scale ** layer);
    // The block's own part is small at first, as initialization makes it.
    const shortcut = Array.from({ length: LAYERS + 1 }, (_, layer) => (1 + 0.1 * scale) ** layer);
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, WIDTH, HEIGHT);
    for (const [values, colour] of [[plain, '#d1620a'], [shortcut, '#2f7fd1']]) {
      context.beginPath();
      context.strokeStyle = colour;
      context.lineWidth = 2.5;
      values.forEach((value, layer) => context.lineTo(layer * WIDTH / LAYERS, height(value)));
      context.stroke();
    }
    number.textContent = scale.toFixed(2);
    told.textContent = t('after', { plain: short(plain[LAYERS]), shortcut: short(shortcut[LAYERS]) });
  }
  draw();
  return make('div', {}, make('div', { class: 'row' }, labelled(t('factor'), factor), number), canvas, told);
}
