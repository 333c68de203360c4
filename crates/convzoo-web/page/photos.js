// A photograph through a network whose weights are the user's own, or stand beside the page.
import { answers } from './answers.js';
import { Client, json, open } from './client.js';
import { button, labelled, layered, make, paintBytes } from './dom.js';
import { evidence } from './evidence.js';
import { kernel } from './kernel.js';
import { network } from './network.js';
import { t } from './words.js';

// What photos/README.md tells of.
const SHIPPED = ['cat', 'coffee'];

// What is open outlives a change of language.
let client, opened = null, photograph = null;

export function photos() {
  client ??= new Client();
  const names = make('select');
  const file = make('input', { type: 'file', accept: '.safetensors,.czc' });
  const here = make('div', { class: 'row' });
  const picture = make('input', { type: 'file', accept: 'image/*' });
  const video = make('video', { autoplay: true, playsinline: true, muted: true, hidden: true, 'aria-label': t('camera') });
  const shoot = button(t('shoot'), take, { hidden: true });
  const status = make('p', { class: 'soft', role: 'status' }, t('noWeights'));
  const image = layered(t('image'));
  const list = make('ol', { class: 'answers', 'aria-live': 'polite', 'aria-label': t('answer') });
  const speaks = make('div'), below = make('div'), filtered = make('div');
  const drop = make('div', { class: 'drop' }, labelled(t('chooseImage'), picture),
    make('div', { class: 'row' }, ...SHIPPED.map(name => button(t(name), () => shipped(name).then(see).catch(fail))),
      button(t('pattern'), () => pattern().then(see)), button(t('camera'), camera), shoot), video);
  const view = make('div', {},
    make('p', {}, t('photosIntro')),
    make('div', { class: 'row' }, labelled(t('network'), names), labelled(t('weights'), file)), here,
    drop, status,
    make('div', { class: 'sides' }, make('div', {}, image.element), make('div', {}, make('h2', {}, t('answer')), list, speaks)),
    below, filtered);

  let shown = null, about = null, filter = null;

  const fail = error => { status.textContent = error.message; status.className = 'error'; };
  const say = text => { status.textContent = text; status.className = 'soft'; };

  async function useWeights(name, source) {
    say(t('loading'));
    try {
      const next = await open(client, name, source);
      const imagenet = next.nodes.at(-1).shape[0] === 1000 ? (await json('networks.json')).classes : [];
      next.labels = next.about?.labels?.length ? next.about.labels : imagenet;
      opened = next;
      await present();
    } catch (error) { fail(error); }
  }

  // Shows the network that is open, and the image through it.
  async function present() {
    names.value = opened.name;
    shown = network(client, opened, image);
    below.replaceChildren(shown.element);
    filter = kernel(client);
    filtered.replaceChildren(filter.element);
    if (photograph) await classify();
    else say(t('noImage'));
  }

  // The network that a file's name begins with, unless another is chosen by hand.
  function nameOf(file) {
    const known = [...names.options].map(option => option.value);
    const stem = file.name.toLowerCase();
    return known.filter(name => stem.startsWith(name)).sort((a, b) => b.length - a.length)[0] ?? names.value;
  }

  async function see(source) {
    photograph = source;
    if (!opened) return say(t('noWeights'));
    return classify().catch(fail);
  }

  async function classify() {
    say(t('loading'));
    await client.ask({ ask: 'image' }, photograph);
    const prepared = await client.ask({ ask: 'prepare' });
    paintBytes(image.canvas, prepared.bytes, prepared.text);
    image.cover(null);
    const { values, ms } = await client.ask({ ask: 'predict' });
    const probabilities = values.subarray(values.length / 2);
    const order = answers(list, probabilities, opened.labels);
    about?.stop();
    about = evidence(client, opened, image, order);
    speaks.replaceChildren(about.element);
    say(t('computed', { ms: ms.toFixed(0), isa: opened.isa }));
    await shown.refresh();
    await filter.refresh();
  }

  async function camera() {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      video.hidden = shoot.hidden = false;
    } catch (error) { fail(error); }
  }

  async function take() {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext('2d').drawImage(video, 0, 0);
    for (const track of video.srcObject.getTracks()) track.stop();
    video.hidden = shoot.hidden = true;
    return see(await canvas.convertToBlob({ type: 'image/png' }));
  }

  file.addEventListener('change', () => { if (file.files[0]) useWeights(nameOf(file.files[0]), file.files[0]); });
  names.addEventListener('change', () => { if (file.files[0]) useWeights(names.value, file.files[0]); });
  picture.addEventListener('change', () => { if (picture.files[0]) see(picture.files[0]); });
  for (const kind of ['dragover', 'dragleave', 'drop']) {
    drop.addEventListener(kind, event => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragover');
      const [dropped] = event.dataTransfer?.files ?? [];
      if (kind === 'drop' && dropped) see(dropped);
    });
  }
  json('networks.json').then(({ networks, weights }) => {
    names.replaceChildren(...networks.map(name => make('option', { value: name }, name)));
    const link = ({ model, file }) => button(file, () => useWeights(model, `weights/${file}`));
    if (weights.length) here.replaceChildren(make('span', {}, t('here')), ...weights.map(link));
    return opened && present();
  }).catch(fail);
  return view;
}

// One of the photographs that come with the page.
async function shipped(name) {
  const response = await fetch(`photos/${name}.jpg`);
  if (!response.ok) throw new Error(`photos/${name}.jpg: ${response.status}`);
  return response.blob();
}

// Edges in all directions and of all widths: rings, rays and a checkerboard.
function pattern() {
  const side = 256;
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext('2d');
  const picture = context.createImageData(side, side);
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
    const [dx, dy] = [x - side / 2, y - side / 2];
    const radius = Math.hypot(dx, dy);
    const rings = 127 + 127 * Math.sin(radius * radius / 220);
    const rays = Math.sin(12 * Math.atan2(dy, dx)) > 0 ? 255 : 0;
    const checks = ((x >> 4) + (y >> 4)) % 2 * 255;
    picture.data.set(radius < 90 ? [rings, rings, rays] : [checks, rings, 255 - checks], 4 * (y * side + x));
    picture.data[4 * (y * side + x) + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}
