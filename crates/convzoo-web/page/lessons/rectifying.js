// A feature map before and after ReLU, under a bias.
import { labelled, make, most, paint } from '../dom.js';
import { t } from '../words.js';

const SIDE = 24;

export function rectifying() {
  // Waves, half of them negative.
  const maps = Float32Array.from({ length: SIDE * SIDE }, (_, i) =>
    Math.sin(i % SIDE * 0.6) + Math.cos(Math.floor(i / SIDE) * 0.45));
  const [before, after] = ['bias', 'lesson_relu'].map(key => make('canvas', { class: 'close', role: 'img', 'aria-label': t(key), style: 'width: 11rem' }));
  const bias = make('input', { type: 'range', min: -2, max: 2, step: 0.05, value: 0, oninput: draw });
  const told = make('p', { class: 'sum', 'aria-live': 'polite' });
  function draw() {
    const sums = maps.map(value => value + bias.valueAsNumber);
    const rectified = sums.map(value => Math.max(0, value));
    const full = most(sums);
    paint(before, sums, [SIDE, SIDE], full);
    paint(after, rectified, [SIDE, SIDE], full);
    told.textContent = t('left', { count: rectified.filter(value => value > 0).length, all: rectified.length });
  }
  draw();
  return make('div', {}, make('div', { class: 'row' }, labelled(t('bias'), bias)),
    make('div', { class: 'together' }, before, make('span', { 'aria-hidden': 'true' }, '→'), after), told);
}
