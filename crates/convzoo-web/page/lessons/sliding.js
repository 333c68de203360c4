// A window that slides over a small image: convolution, padding, stride, pooling.
import { labelled, make, short } from '../dom.js';
import { t } from '../words.js';

// Bright on the left, dark on the right, and a bright square: the numbers of the course's first image, and some more.
const IMAGE = [
  [9, 9, 9, 0, 0, 0, 0], [9, 9, 9, 0, 0, 0, 0], [9, 9, 9, 0, 0, 0, 0], [9, 9, 9, 0, 5, 5, 0],
  [9, 9, 9, 0, 5, 5, 0], [9, 9, 9, 0, 0, 0, 0], [9, 9, 9, 0, 0, 0, 1],
];

export function sliding({ kernel, choose, choices, pool = false }) {
  const settings = { padding: 0, stride: pool ? 2 : 1 };
  const size = pool ? 2 : 3;
  let largest = true;
  const before = make('table', { class: 'grid' }), after = make('table', { class: 'grid' });
  const at = make('input', { type: 'range', min: 0, value: 0, oninput: draw });
  const told = make('p', { class: 'sum', 'aria-live': 'polite' });

  const cell = (y, x) => IMAGE[y - settings.padding]?.[x - settings.padding] ?? 0;
  const side = () => IMAGE.length + 2 * settings.padding;
  const outputs = () => Math.floor((side() - size) / settings.stride) + 1;

  function value(row, column) {
    const cells = Array.from({ length: size * size }, (_, i) =>
      cell(row * settings.stride + Math.floor(i / size), column * settings.stride + i % size));
    if (!pool) return cells.reduce((sum, value, i) => sum + value * kernel[i], 0);
    return largest ? Math.max(...cells) : cells.reduce((a, b) => a + b) / cells.length;
  }

  const table = (target, count, text, marked) => target.replaceChildren(...Array.from({ length: count }, (_, y) =>
    make('tr', {}, ...Array.from({ length: count }, (_, x) => make('td', { class: marked(y, x) }, text(y, x))))));

  function draw() {
    const count = outputs();
    at.max = count * count - 1;
    const place = Math.min(at.valueAsNumber, count * count - 1);
    const [row, column] = [Math.floor(place / count), place % count];
    const [top, left] = [row * settings.stride, column * settings.stride];
    const padded = (y, x) => [y, x].some(place => place < settings.padding || place >= settings.padding + IMAGE.length);
    table(before, side(), (y, x) => short(cell(y, x)), (y, x) =>
      y >= top && y < top + size && x >= left && x < left + size ? 'on' : padded(y, x) ? 'zero' : undefined);
    table(after, count, (y, x) => short(value(y, x)), (y, x) => y === row && x === column ? 'on' : undefined);
    told.textContent = `${t('outputSize', { size: count })}. ${t('windowAt', { row: row + 1, column: column + 1, sum: short(value(row, column)) })}`;
  }

  const controls = [labelled(t('position'), at)];
  if (choose) {
    const select = make('select', { onchange: event => { settings[choose] = Number(event.target.value); draw(); } },
      ...choices.map(choice => make('option', { value: choice }, choice)));
    controls.push(labelled(t(choose), select));
  }
  if (pool) {
    const select = make('select', { onchange: event => { largest = event.target.value === 'max'; draw(); } },
      make('option', { value: 'max' }, t('maxPool')), make('option', { value: 'mean' }, t('meanPool')));
    controls.push(labelled(t('lesson_pooling'), select));
  }
  draw();
  return make('div', {}, make('div', { class: 'row' }, ...controls),
    make('div', { class: 'together scroll' }, before, make('span', { 'aria-hidden': 'true' }, '→'), after), told);
}
