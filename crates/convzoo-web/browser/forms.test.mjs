// The program in each of its forms, under Node.js, against the command line: every kind of kernel in every set of
// instructions. PAGE_FOLDER has the program, CONVZOO is the command line.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';

import { random, safetensors, weights } from './files.mjs';

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

for (const name of NETWORKS) {
  test(`${name} gives the command line's logits in every form`, () => {
    const description = JSON.parse(readFileSync(join(PAGE_FOLDER, 'networks', `${name}.json`), 'utf8'));
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
    const size = Math.max(...expected.map(Math.abs));
    assert.ok(size > 0 && Number.isFinite(size), `logits of up to ${size}`);
    found.forEach(({ logits }, form) => {
      const error = Math.max(...expected.map((value, i) => Math.abs(value - logits[i])));
      assert.ok(error <= 1e-4 * size, `${FORMS[form]}: logits differ by ${error} of ${size}`);
    });
  });
}
