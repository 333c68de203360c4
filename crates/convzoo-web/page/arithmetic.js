// One value, step by step: the window, what each of its numbers is multiplied by, the sum.
import { labelled, make, short } from './dom.js';
import { t } from './words.js';

// Products of a vector that are listed.
const LISTED = 12;

export function arithmetic(client, opened) {
  const slice = make('input', { type: 'range', min: 0, value: 0, oninput: draw });
  const step = make('input', { type: 'range', min: 0, value: 0, oninput: draw });
  const number = make('output');
  const controls = make('div', { class: 'row' },
    make('span', {}, labelled(t('onChannel'), slice), ' ', number), labelled(t('step'), step));
  const table = make('table', { class: 'window' });
  const sums = make('p', { class: 'sum', 'aria-live': 'polite' });
  const element = make('section', {},
    make('h3', {}, t('arithmetic')), make('p', { class: 'soft' }, t('arithmeticTold')),
    controls, make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': t('arithmetic') }, table), sums);
  let found = null, kind = '';

  async function show(node, at) {
    kind = opened.nodes[node].kind;
    const windows = ['Conv2d', 'Linear', 'MaxPool2d', 'AvgPool2d', 'AdaptiveAvgPool2d'];
    found = null;
    if (windows.includes(kind)) {
      const { text, values } = await client.ask({ ask: 'products', node, at });
      const { products } = text;
      const count = products.window.reduce((a, b) => a * b);
      found = { ...products, values: values.subarray(0, count), weights: values.subarray(count) };
      element.dataset.value = products.value;
      const [depth, height, width] = products.window;
      slice.max = depth - 1;
      slice.value = Math.min(slice.valueAsNumber, depth - 1);
      step.max = step.value = isVector() ? LISTED : height * width;
    }
    draw();
  }

  const isVector = () => found.window[1] * found.window[2] === 1 && found.window[0] > 1;

  function draw() {
    controls.hidden = !found;
    if (!found) {
      table.replaceChildren();
      sums.textContent = t('noWindow', { kind });
      return;
    }
    if (isVector()) list();
    else window_();
  }

  const product = i => found.weights.length ? found.values[i] * found.weights[i] : found.values[i];

  // The cells of one channel of the window, and their sum up to the step.
  function window_() {
    const [depth, height, width] = found.window;
    const first = slice.valueAsNumber * height * width;
    const done = step.valueAsNumber;
    table.replaceChildren(...Array.from({ length: height }, (_, y) => make('tr', {}, ...Array.from({ length: width }, (_, x) => {
      const i = y * width + x;
      const text = found.weights.length
        ? `${short(found.values[first + i])} · ${short(found.weights[first + i])}` : short(found.values[first + i]);
      return make('td', { class: i === done - 1 ? 'now' : i >= done ? 'out' : undefined }, text);
    }))));
    let sum = 0;
    for (let i = 0; i < done; i++) sum += product(first + i);
    sums.replaceChildren(found.weights.length ? t('products', { count: done, sum: short(sum) }) : '', make('br'), total(depth * height * width));
    controls.firstChild.hidden = depth === 1;
    number.textContent = found.channel + slice.valueAsNumber;
  }

  // The largest products of a vector.
  function list() {
    const order = [...found.values.keys()].sort((a, b) => Math.abs(product(b)) - Math.abs(product(a)));
    const rows = order.slice(0, Math.min(LISTED, step.valueAsNumber));
    table.replaceChildren(...rows.map(i => make('tr', {}, make('td', {}, `[${i}]`),
      make('td', {}, `${short(found.values[i])} · ${short(found.weights[i])}`), make('td', {}, short(product(i))))));
    sums.replaceChildren(t('largest'), make('br'), total(found.values.length));
    controls.firstChild.hidden = true;
  }

  function total(count) {
    if (!found.weights.length) return t('maximum', { value: short(found.value) });
    const bias = found.bias ?? 0;
    return t('total', { count, sum: short(found.value - bias), bias: short(bias), value: short(found.value) });
  }

  return { element, show };
}
