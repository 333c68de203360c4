// A layer: its feature maps, its filters, what a value of it sees of the image, and how the value is computed.
import { arithmetic } from './arithmetic.js';
import { breathe, button, labelled, make, most, paint, short } from './dom.js';
import { t } from './words.js';

// Feature maps that are shown at once.
const TILES = 32;

const count = number => number.toLocaleString('en').replaceAll(',', ' ');

// `nodes`: a layer and what follows it, such as its norm and activation.
export function layer(client, opened, nodes, image) {
  let node = nodes[0], maps = null, at = [0, 0, 0], shown = TILES, placed = false, closed = false;
  const about = number => opened.nodes[number];
  const title = about(nodes[0]).name || about(nodes[0]).kind;
  const facts = make('p', { class: 'facts' });
  const tiles = make('div', { class: 'tiles' });
  const more = button(t('more'), () => { shown += TILES; tile(); });
  const close = make('canvas', { class: 'close', role: 'img', 'aria-label': t('maps') });
  const places = ['channel', 'row', 'column'].map((key, i) =>
    make('input', { type: 'number', min: 0, value: 0, oninput: event => go(i, event.target.valueAsNumber) }));
  const value = make('output', { class: 'sum' });
  const filter = make('div', { class: 'tiles' });
  const working = arithmetic(client, opened);
  const status = make('p', { class: 'error', role: 'status' });
  const tabs = make('div', { class: 'row', role: 'group', 'aria-label': title },
    ...nodes.map(number => button(about(number).kind, () => { node = number; refresh(); }, { 'data-node': number })));
  const element = make('div', { class: 'layer' }, make('h3', {}, title), tabs, facts, status,
    make('h3', {}, t('maps')), tiles, more,
    make('div', { class: 'sides' }, close,
      make('div', {}, ...['channel', 'row', 'column'].map((key, i) => make('div', { class: 'row' }, labelled(t(key), places[i]))),
        make('div', { class: 'row' }, value))),
    make('h3', {}, t('filter')), filter,
    working.element);

  // [channels, height, width], of vectors too.
  const shape = () => [...about(node).shape, 1, 1].slice(0, 3);
  const plane = channel => maps.subarray(channel * shape()[1] * shape()[2], (channel + 1) * shape()[1] * shape()[2]);

  async function refresh() {
    for (const tab of tabs.children) tab.setAttribute('aria-pressed', Number(tab.dataset.node) === node);
    told();
    try {
      const asked = node;
      const answer = await client.ask({ ask: 'output', node });
      if (closed || asked !== node) return;
      maps = answer.values;
      status.textContent = '';
      const sides = shape();
      at = at.map((place, i) => Math.min(place, sides[i] - 1));
      if (!placed) at = [at[0], Math.floor(sides[1] / 2), Math.floor(sides[2] / 2)];
      placed = true;
      places.forEach((input, i) => { input.max = sides[i] - 1; });
      await tile();
      await choose();
    } catch (error) { status.textContent = error.message; }
  }

  function told() {
    const { shape, params, macs, kind, field } = about(node);
    const side = field.size.map(size => size ?? 0);
    const seen = field.size.includes(null) ? t('fieldAll') : side.join('×');
    const parts = [kind, `${t('output')} ${shape.join('×')}`, `${count(params)} ${t('params')}`, `${count(macs)} ${t('macs')}`,
      `${t('field')} ${seen}`];
    facts.textContent = parts.join(' · ');
  }

  // Feature maps side by side, a few at a time so that the page answers in between.
  let turn = 0;
  async function tile() {
    const mine = ++turn;
    const [channels, height, width] = shape();
    const full = most(maps);
    const isVector = height * width === 1;
    more.hidden = isVector || channels <= shown;
    if (isVector) {
      // A vector is a single strip.
      const strip = paint(make('canvas', { role: 'img', 'aria-label': t('maps') }), maps, [1, channels], full);
      strip.style = 'width: min(100%, 40rem); height: 2rem';
      tiles.replaceChildren(strip);
      return;
    }
    const row = [];
    for (let channel = 0; channel < Math.min(channels, shown); channel++) {
      const canvas = paint(make('canvas', { 'aria-hidden': 'true' }), plane(channel), [height, width], full);
      row.push(make('button', {
        type: 'button', onclick: () => go(0, channel), 'aria-label': t('mapOf', { channel, name: title }), 'data-channel': channel,
      }, canvas));
      if (channel % 8 === 7) await breathe();
      if (mine !== turn) return;
    }
    tiles.replaceChildren(...row);
    press();
  }

  const press = () => {
    for (const tile of tiles.querySelectorAll('button')) tile.setAttribute('aria-pressed', Number(tile.dataset.channel) === at[0]);
  };

  function go(i, place) {
    if (!maps || !(place >= 0 && place < shape()[i])) return;
    at[i] = place;
    choose();
  }

  // The value at `at`: the large map, what it sees, its filter, its arithmetic.
  async function choose() {
    const [channel, row, column] = at;
    const [, height, width] = shape();
    press();
    places.forEach((input, i) => { if (input.valueAsNumber !== at[i]) input.value = at[i]; });
    const own = plane(channel);
    paint(close, own, [height, width], most(own));
    close.setAttribute('aria-label', t('mapOf', { channel, name: title }));
    const context = close.getContext('2d');
    context.fillStyle = '#00b894';
    context.fillRect(column, row, 1, 1);
    value.textContent = `${t('value')} ${short(own[row * width + column])}`;
    element.dataset.value = own[row * width + column];
    see(row, column);
    await Promise.all([weights(channel), working.show(node, at)]).catch(error => { status.textContent = error.message; });
  }

  // The receptive field on the image.
  function see(row, column) {
    const { field } = about(node);
    const [, rows, columns] = opened.input;
    const over = make('canvas', { width: 4 * columns, height: 4 * rows });
    const sizes = field.size.map((size, i) => size ?? [rows, columns][i]);
    const [top, left] = [row, column].map((place, i) => field.size[i] === null ? 0
      : field.center[i] + place * field.stride[i] - (sizes[i] - 1) / 2);
    const context = over.getContext('2d');
    context.scale(4, 4);
    context.strokeStyle = '#00b894';
    context.lineWidth = columns / 100;
    context.strokeRect(left, top, sizes[1], sizes[0]);
    image.cover(over);
  }

  async function weights(channel) {
    const { kind, parameters } = about(node);
    if (kind !== 'Conv2d') { filter.replaceChildren(make('span', { class: 'soft' }, '–')); return; }
    const { values: own } = await client.ask({ ask: 'filter', node, channel });
    const [, depth, height, width] = parameters[0].shape;
    const full = most(own);
    filter.replaceChildren(...Array.from({ length: Math.min(depth, TILES) }, (_, input) => paint(
      make('canvas', { role: 'img', 'aria-label': t('filterOf', { channel, input }) }),
      own.subarray(input * height * width, (input + 1) * height * width), [height, width], full)));
  }

  close.addEventListener('click', event => {
    const box = close.getBoundingClientRect();
    const [, height, width] = shape();
    at = [at[0], Math.floor((event.clientY - box.top) / box.height * height), Math.floor((event.clientX - box.left) / box.width * width)];
    choose();
  });
  return { element, refresh, close: () => { closed = true; } };
}
