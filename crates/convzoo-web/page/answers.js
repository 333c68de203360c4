// The most probable classes, as bars.
import { make } from './dom.js';

export function answers(list, probabilities, labels, count = 5) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, count);
  list.replaceChildren(...order.map((index, place) => {
    const percent = 100 * probabilities[index];
    const bar = make('span', { style: `width: ${percent.toFixed(2)}%` });
    return make('li', { class: place === 0 ? 'first' : undefined, 'data-class': index, 'data-probability': probabilities[index] },
      make('span', { class: 'name' }, labels[index] ?? String(index)),
      make('span', { class: 'bar', 'aria-hidden': 'true' }, bar),
      make('span', { class: 'number' }, `${percent.toFixed(1)}%`));
  }));
  return order;
}
