// The program in each of its forms, under Node.js, against the command line: every kind of kernel in every set of
// instructions. PAGE_FOLDER has the program, CONVZOO is the command line.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';

import { picture, png, random, safetensors, weights } from './files.mjs';

// Older V8s have it behind this flag.
setFlagsFromString('--experimental-wasm-relaxed-simd');

const { CONVZOO, PAGE_FOLDER } = process.env;
const folder = mkdtempSync(join(tmpdir(), 'convzoo-forms-'));
// Under a name that says what kind of script it is, which a server says in a browser.
copyFileSync(join(PAGE_FOLDER, 'engine.js'), join(folder, 'engine.mjs'));
const { Engine } = await import(join(folder, 'engine.mjs'));
after(() => rmSync(folder, { recursive: true, force: true }));

// Between them: planar, direct, depthwise and Winograd's convolutions, groups, norms, gates, sums, concatenations, shuffles,
// both poolings, activations with and without exponentials, linear layers.
const NETWORKS = ['lenet5', 'resnet20_cifar', 'squeezenet1_1', 'densenet121', 'mobilenet_v3_small', 'shufflenet_v2_x1_0',
  'efficientnet_b0'];
const FORMS = ['convzoo.wasm', 'convzoo-simd.wasm', 'convzoo-relaxed.wasm'];

const engines = await Promise.all(FORMS.map(form => Engine.load(readFileSync(join(PAGE_FOLDER, form)))));

const described = name => JSON.parse(readFileSync(join(PAGE_FOLDER, 'networks', `${name}.json`), 'utf8'));

// An array of f32 as NumPy writes it.
function npy(path) {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset + 10 + bytes.readUInt16LE(8), bytes.byteOffset + bytes.length));
}

function assertClose(found, expected, what) {
  assert.equal(found.length, expected.length, what);
  const size = Math.max(...expected.map(Math.abs));
  assert.ok(size > 0 && Number.isFinite(size), `${what}: values of up to ${size}`);
  const error = expected.reduce((error, value, i) => Math.max(error, Math.abs(value - found[i])), 0);
  assert.ok(error <= 1e-4 * size, `${what}: values of up to ${size} differ by ${error}`);
}

for (const name of NETWORKS) {
  test(`${name} gives the command line's logits in every form`, () => {
    const description = described(name);
    const file = weights(description);
    const [channels, height, width] = description.graph.nodes[0].shape;
    const next = random(3);
    const pixels = Uint8Array.from({ length: channels * height * width }, () => 256 * next());
    const found = engines.map(engine => {
      engine.answer({ ask: 'weights' }, file);
      engine.answer({ ask: 'open', description });
      engine.answer({ ask: 'pixels', width, height, channels }, pixels);
      const { text, values } = engine.answer({ ask: 'predict' });
      return { input: engine.answer({ ask: 'output', node: 0 }).values, logits: values.subarray(0, text.classes) };
    });
    const [own, input, output] = ['weights', 'input', 'logits'].map(kind => join(folder, `${name}-${kind}.safetensors`));
    writeFileSync(own, file);
    writeFileSync(input, safetensors([['input', [1, channels, height, width], found[0].input]]));
    execFileSync(CONVZOO, ['forward', name, '--weights', own, '--input', input, '--output', output]);
    const bytes = readFileSync(output);
    const begin = 8 + Number(bytes.readBigUInt64LE(0));
    const expected = new Float32Array(bytes.buffer.slice(bytes.byteOffset + begin, bytes.byteOffset + bytes.length));
    found.forEach(({ logits }, form) => assertClose(logits, expected, FORMS[form]));
  });
}

// Heads of a convolution, of linear layers with an activation between them, and one of linear layers alone.
for (const [name, what] of [['squeezenet1_1', 'gradcam'], ['mobilenet_v3_small', 'gradcam'], ['resnet18', 'gradcam'],
  ['lenet5', 'gradcam'], ['lenet5', 'occlusion']]) {
  test(`${what} of ${name} is what the command line shows`, () => {
    const [description, engine] = [described(name), engines.at(-1)];
    const [channels] = description.graph.nodes[0].shape;
    const next = random(5);
    const bytes = channels === 3 ? picture(320, 250) : png(Uint8Array.from({ length: 1024 }, () => 256 * next()), 32, 32);
    const [own, image, out] = ['weights.safetensors', 'image.png', 'shown'].map(kind => join(folder, `${name}-${what}-${kind}`));
    writeFileSync(own, weights(description, 2));
    writeFileSync(image, bytes);
    const options = ['--what', what, '--class', '3', '--raw', '--out', out];
    execFileSync(CONVZOO, ['visualize', name, image, '--weights', own, ...options]);
    engine.answer({ ask: 'weights' }, readFileSync(own));
    engine.answer({ ask: 'open', description });
    engine.answer({ ask: 'image' }, bytes);
    let answer = engine.answer({ ask: what === 'gradcam' ? 'gradCam' : 'occlude', class: 3 });
    while (answer.text.done < answer.text.all) answer = engine.answer({ ask: 'occludeNext' });
    assertClose(answer.values, npy(join(out, `${name}-${what}-image-${what}.npy`)), what);
  });
}
