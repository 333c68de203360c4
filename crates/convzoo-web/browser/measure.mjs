// Measures the page in Chromium: from opening to the first result, tasks of the page's own thread, and networks beside
// onnxruntime-web (SIMD, one thread), runs in turns. Prints a table in Markdown.
import { execFileSync } from 'node:child_process';
import { createReadStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';

import { launch } from './chromium.mjs';
import { weights } from './files.mjs';

const { PAGE, CONVZOO, PAGE_FOLDER } = process.env;
const NETWORKS = ['squeezenet1_1', 'resnet18'];
const ROUNDS = 15;
const folder = mkdtempSync(join(tmpdir(), 'convzoo-measure-'));
const median = numbers => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

// onnxruntime-web's files and the models, with an empty page to run in.
const KINDS = { '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.html': 'text/html' };
const server = createServer(({ url }, response) => {
  const name = url.slice(1).split('?')[0];
  response.setHeader('Content-Type', KINDS[extname(name)] ?? 'application/octet-stream');
  if (name === 'empty.html') return response.end('<!DOCTYPE html><title>onnxruntime-web</title>');
  const dist = join('node_modules/onnxruntime-web/dist', name);
  createReadStream(name.endsWith('.onnx') || name.endsWith('.safetensors') ? join(folder, name) : dist)
    .on('error', () => { response.statusCode = 404; response.end(); }).pipe(response);
});
await new Promise(resolve => { server.listen(0, '127.0.0.1', resolve); });
const peers = `http://127.0.0.1:${server.address().port}`;

const browser = await launch();
try {
  await first();
  await networks();
} finally {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true, force: true });
}

// From opening the page to the first digit answered, and the long tasks of the page's thread: before the page stands, and
// afterwards, while networks compute.
async function first() {
  const times = [], opening = [], computing = [];
  for (let round = 0; round < 5; round++) {
    const page = await browser.newPage();
    await page.addInitScript(() => {
      window.tasks = [];
      new PerformanceObserver(list => window.tasks.push(...list.getEntries().map(entry => [entry.startTime, entry.duration])))
        .observe({ type: 'longtask', buffered: true });
    });
    await page.goto(PAGE);
    const box = await page.locator('.pad').boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 5);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width / 2, box.y + 4 * box.height / 5, { steps: 12 });
    await page.mouse.up();
    await page.waitForFunction(() => performance.getEntriesByName('answered').length > 0);
    times.push(await page.evaluate(() => performance.getEntriesByName('answered')[0].startTime));
    await page.locator('.picture a[href="#n1"]').first().click();
    await page.waitForFunction(() => document.querySelectorAll('.tiles button').length >= 6);
    const [tasks, stands] = await page.evaluate(() => [window.tasks, performance.getEntriesByType('paint').at(-1)?.startTime ?? 0]);
    for (const [at, duration] of tasks) (at < stands ? opening : computing).push(duration);
    await page.close();
  }
  console.log(`from opening the page to the first result: ${median(times).toFixed(0)} ms, the median of ${times.length}`);
  const told = tasks => `${tasks.length}${tasks.length ? `, the longest ${Math.max(...tasks).toFixed(0)} ms` : ''}`;
  console.log(`tasks of the page's thread over 50 ms: until it was drawn for the first time ${told(opening)}; afterwards ${told(computing)}`);
}

async function networks() {
  const own = await browser.newPage();
  await own.goto(PAGE);
  const isa = await own.evaluate(async () => (await import('/engine.js')).program());
  const other = await browser.newPage();
  await other.goto(`${peers}/empty.html`);
  console.log(`\n| network | convzoo (${isa}) | onnxruntime-web | ratio |\n| --- | ---: | ---: | ---: |`);
  for (const name of NETWORKS) {
    const description = JSON.parse(readFileSync(join(PAGE_FOLDER, 'networks', `${name}.json`), 'utf8'));
    const file = join(folder, `${name}.safetensors`);
    writeFileSync(file, weights(description));
    execFileSync(CONVZOO, ['convert', name, file, join(folder, `${name}.onnx`)]);
    writeFileSync(join(PAGE_FOLDER, 'weights', 'measured.safetensors'), readFileSync(file));
    await own.evaluate(async description => {
      const { Engine, program } = await import('/engine.js');
      const engine = await Engine.load(await fetch(`/${program()}`));
      const bytes = new Uint8Array(await (await fetch('/weights/measured.safetensors')).arrayBuffer());
      engine.answer({ ask: 'weights' }, bytes);
      engine.answer({ ask: 'open', description });
      engine.answer({ ask: 'pixels', width: 224, height: 224, channels: 3 }, new Uint8Array(3 * 224 * 224).map((_, i) => i * 7919));
      window.once = () => {
        const begun = performance.now();
        engine.answer({ ask: 'predict' });
        return performance.now() - begun;
      };
    }, description);
    await other.evaluate(async model => {
      const ort = await import('/ort.wasm.min.mjs');
      ort.env.wasm.numThreads = 1;
      const session = await ort.InferenceSession.create(`/${model}`, { executionProviders: ['wasm'] });
      const input = new ort.Tensor('float32', Float32Array.from({ length: 3 * 224 * 224 }, (_, i) => Math.sin(i)), [1, 3, 224, 224]);
      window.once = async () => {
        const begun = performance.now();
        await session.run({ [session.inputNames[0]]: input });
        return performance.now() - begun;
      };
    }, `${name}.onnx`);
    const times = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      for (const [place, page] of [own, other].entries()) times[place].push(await page.evaluate(() => window.once()));
    }
    // The first runs compile and plan.
    const [mine, theirs] = times.map(times => median(times.slice(3)));
    console.log(`| ${name} | ${mine.toFixed(1)} ms | ${theirs.toFixed(1)} ms | ${(mine / theirs).toFixed(2)} |`);
  }
  rmSync(join(PAGE_FOLDER, 'weights', 'measured.safetensors'), { force: true });
}
