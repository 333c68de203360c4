// A 1×1 convolution: three channels of a picture to one.
import { labelled, make, most, paint, paintBytes } from '../dom.js';
import { t } from '../words.js';

const SIDE = 32;

export function mixing() {
  // A red disc, a green bar, and blue that grows to the right.
  const bytes = Uint8Array.from({ length: 3 * SIDE * SIDE }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % SIDE, Math.floor(i / 3 / SIDE)];
    return [Math.hypot(x - 11, y - 12) < 8 ? 230 : 20, Math.abs(y - 24) < 4 ? 210 : 30, 7 * x][i % 3];
  });
  const canvas = make('canvas', { class: 'close', role: 'img', 'aria-label': t('image'), style: 'width: 9rem' });
  const mixed = make('canvas', { class: 'close', role: 'img', 'aria-label': t('mixed'), style: 'width: 9rem' });
  const sliders = ['red', 'green', 'blue'].map((name, i) =>
    make('input', { type: 'range', min: -1, max: 1, step: 0.05, value: [1, -1, 0][i], oninput: draw }));
  paintBytes(canvas, bytes, { width: SIDE, height: SIDE, channels: 3 });
  function draw() {
    const weights = sliders.map(slider => slider.valueAsNumber);
    const values = Float32Array.from({ length: SIDE * SIDE }, (_, i) =>
      weights.reduce((sum, weight, channel) => sum + weight * bytes[3 * i + channel] / 255, 0));
    paint(mixed, values, [SIDE, SIDE], Math.max(1, most(values)));
  }
  draw();
  return make('div', {}, ...['red', 'green', 'blue'].map((name, i) => make('div', { class: 'row' }, labelled(t(name), sliders[i]))),
    make('div', { class: 'together' }, canvas, make('span', { 'aria-hidden': 'true' }, '→'), mixed));
}
