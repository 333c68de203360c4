// Small helpers for elements and canvases.

// make('button', { type: 'button', onclick }, 'text', child …)
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter(child => child !== undefined && child !== null));
  return element;
}

export const button = (text, onclick, attributes = {}) => make('button', { type: 'button', onclick, ...attributes }, text);

export function labelled(text, input) { return make('label', {}, make('span', {}, text), input); }

const dark = matchMedia('(prefers-color-scheme: dark)');

// 255 colours for negative numbers, zero, 255 for positive ones, as the four bytes of a pixel.
const SHADES = 255;
function scale() {
  const [zero, positive, negative] = dark.matches
    ? [[22, 25, 28], [255, 176, 92], [110, 175, 255]] : [[255, 255, 255], [176, 74, 0], [10, 80, 170]];
  return Uint32Array.from({ length: 2 * SHADES + 1 }, (_, i) => {
    const [end, share] = [i < SHADES ? negative : positive, Math.abs(i - SHADES) / SHADES];
    const [red, green, blue] = zero.map((part, i) => Math.round(part + (end[i] - part) * share));
    return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
  });
}
let shades = scale();
dark.addEventListener('change', () => { shades = scale(); });

// Numbers as colours: zero is the page's ground, positive is orange, negative blue, `most` is full.
export function paint(canvas, values, [height, width], most) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const factor = most > 0 ? SHADES / most : 0;
  for (let i = 0; i < pixels.length; i++) {
    const shade = Math.round(Math.max(-SHADES, Math.min(SHADES, factor * values[i])));
    pixels[i] = shades[SHADES + shade];
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

// Bytes of grey or colour as a picture.
export function paintBytes(canvas, bytes, { width, height, channels }) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const picture = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = bytes[channels * i + (channels === 3 ? c : 0)];
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

// The largest magnitude.
export function most(values) {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]));
  return most;
}

// Lets the page answer before long work goes on.
export const breathe = () => new Promise(resolve => { setTimeout(resolve); });

// A number in about four digits.
export function short(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size >= 1e4 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// A picture, and what is laid over it.
export function layered(label) {
  const canvas = make('canvas', { role: 'img', 'aria-label': label });
  const element = make('div', { class: 'image' }, canvas);
  return {
    element, canvas,
    cover: over => {
      over?.setAttribute('aria-hidden', 'true');
      element.replaceChildren(...[canvas, over].filter(Boolean));
    },
  };
}
