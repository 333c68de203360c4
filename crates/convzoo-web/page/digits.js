// Draw a digit; LeNet-5 answers.
import { answers } from './answers.js';
import { Client, json, open } from './client.js';
import { breathe, button, layered, make, paintBytes } from './dom.js';
import { network } from './network.js';
import { t } from './words.js';

const SIDE = 280;
// The network was trained on digits that fill 32×32 pixels, counted into 8×8 squares of 0 to 16 black ones.
const FINE = 32, COARSE = 8;

// The network and the drawing outlive a change of language.
let client, opened, drawing;

export function digits() {
  client ??= new Client();
  opened ??= open(client, 'lenet5', 'weights/lenet5-digits.safetensors');
  const pad = make('canvas', { width: SIDE, height: SIDE, class: 'pad', tabindex: 0, role: 'application', 'aria-label': t('pad') });
  const seen = layered(t('seen'));
  const list = make('ol', { class: 'answers', 'aria-live': 'polite', 'aria-label': t('answer') });
  const status = make('p', { class: 'soft', role: 'status' }, t('loading'));
  const below = make('div');
  const view = make('div', { class: 'digits' },
    make('p', {}, t('digitsIntro')),
    make('div', { class: 'sides' },
      make('div', {}, pad, make('div', { class: 'row' },
        button(t('clear'), () => { clear(); update(); }), button(t('example'), example))),
      make('div', {}, make('h2', {}, t('answer')), list, status, make('h3', {}, t('seen')), seen.element)),
    below);

  const context = pad.getContext('2d', { willReadFrequently: true });
  context.lineWidth = 22;
  context.lineCap = context.lineJoin = 'round';
  context.strokeStyle = '#fff';
  let shownNetwork;
  const clear = () => { context.fillStyle = '#000'; context.fillRect(0, 0, SIDE, SIDE); };
  clear();
  if (drawing) context.drawImage(drawing, 0, 0);
  drawing = pad;

  // Answers the last drawing; those that came while it computed are left out.
  let busy = false, again = false;
  async function update() {
    if (busy) { again = true; return; }
    busy = true;
    do {
      again = false;
      await classify().catch(error => { status.textContent = error.message; status.className = 'error'; });
    } while (again);
    busy = false;
  }

  async function classify() {
    const { isa } = await opened;
    const pixels = coarse(context);
    if (!pixels) {
      list.replaceChildren();
      status.textContent = t('nothing');
      return;
    }
    await client.ask({ ask: 'pixels', width: COARSE, height: COARSE, channels: 1 }, pixels.buffer);
    const { values, ms } = await client.ask({ ask: 'predict' });
    answers(list, values.subarray(values.length / 2), [...'0123456789'], 10);
    const prepared = await client.ask({ ask: 'prepare' });
    paintBytes(seen.canvas, prepared.bytes, prepared.text);
    status.textContent = t('computed', { ms: ms.toFixed(1), isa });
    status.className = 'soft';
    performance.mark('answered');
    await shownNetwork?.refresh();
  }

  const place = event => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height];
  };
  const line = (from, to) => {
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    update();
  };
  let last = null;
  pad.addEventListener('pointerdown', event => { pad.setPointerCapture(event.pointerId); last = place(event); line(last, last); });
  pad.addEventListener('pointermove', event => { if (last) { const to = place(event); line(last, to); last = to; } });
  for (const end of ['pointerup', 'pointercancel']) pad.addEventListener(end, () => { last = null; });

  let pen = [SIDE / 2, SIDE / 2], down = false;
  pad.addEventListener('keydown', event => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === ' ') {
      down = !down;
      status.textContent = t(down ? 'penDown' : 'penUp');
      if (down) line(pen, pen);
    } else if (move) {
      const to = pen.map((at, i) => Math.min(SIDE - 12, Math.max(12, at + 14 * move[i])));
      if (down) line(pen, to);
      pen = to;
    } else return;
    event.preventDefault();
  });

  async function example() {
    const { digits } = await json('samples.json');
    const digit = digits[Math.floor(Math.random() * digits.length)];
    clear();
    const size = SIDE / COARSE;
    digit.forEach((ink, i) => {
      context.fillStyle = `rgb(${[0, 0, 0].fill(Math.round(ink * 255 / 16))})`;
      context.fillRect(i % COARSE * size, Math.floor(i / COARSE) * size, size, size);
    });
    update();
  }

  opened.then(async opened => {
    status.textContent = t('nothing');
    await update();
    await breathe();
    shownNetwork = network(client, opened, seen);
    below.replaceChildren(shownNetwork.element);
  }).catch(error => { status.textContent = error.message; status.className = 'error'; });
  return view;
}

// The drawing as the digits look that the network was trained on: what is drawn fills the height, and is counted in squares.
// Nothing where nothing is drawn.
function coarse(context) {
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  let [left, top, right, bottom] = [SIDE, SIDE, -1, -1];
  for (let y = 0; y < SIDE; y++) for (let x = 0; x < SIDE; x++) {
    if (data[4 * (y * SIDE + x)] > 24) {
      left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y);
    }
  }
  if (right < 0) return null;
  const [width, height] = [right - left + 1, bottom - top + 1];
  const scale = FINE / Math.max(width, height);
  const fine = new OffscreenCanvas(FINE, FINE).getContext('2d', { willReadFrequently: true });
  fine.imageSmoothingQuality = 'high';
  fine.drawImage(context.canvas, left, top, width, height,
    (FINE - scale * width) / 2, (FINE - scale * height) / 2, scale * width, scale * height);
  const ink = fine.getImageData(0, 0, FINE, FINE).data;
  const pixels = new Uint8Array(COARSE * COARSE);
  const square = FINE / COARSE;
  for (let i = 0; i < pixels.length; i++) {
    let sum = 0;
    for (let j = 0; j < square * square; j++) {
      const [y, x] = [Math.floor(i / COARSE) * square + Math.floor(j / square), i % COARSE * square + j % square];
      sum += ink[4 * (y * FINE + x)];
    }
    pixels[i] = Math.round(sum / (square * square) / 255 * 16) * 255 / 16;
  }
  return pixels;
}
