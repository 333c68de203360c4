// Drives the real page in Chromium. PAGE is its address, CONVZOO the command line, WEIGHTS LeNet-5's.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { launch } from './chromium.mjs';
import { picture, png, weights } from './files.mjs';

const { PAGE, CONVZOO, WEIGHTS, PAGE_FOLDER } = process.env;
const NETWORK = 'squeezenet1_1';
const folder = mkdtempSync(join(tmpdir(), 'convzoo-page-'));
const errors = [], foreign = [];
let browser, page;

before(async () => {
  browser = await launch();
  page = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: 'en-US' });
  page.setDefaultTimeout(120_000);
  page.on('request', request => {
    const { protocol, origin } = new URL(request.url());
    if (!['blob:', 'data:'].includes(protocol) && origin !== new URL(PAGE).origin) foreign.push(request.url());
  });
  page.on('pageerror', error => errors.push(error.message));
  page.on('console', message => { if (message.type() === 'error') errors.push(message.text()); });
});

after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

// What the command line says of an image: probabilities by class.
function predicted(image, ...options) {
  const text = execFileSync(CONVZOO, ['predict', image, '--top', '5', '--json', ...options], { encoding: 'utf8' });
  return new Map(JSON.parse(text)[0].top.map(({ class: index, probability }) => [index, probability]));
}

const answers = () => page.$$eval('.answers li', items =>
  items.map(item => [Number(item.dataset.class), Number(item.dataset.probability)]));

function assertSame(found, expected) {
  for (const [index, probability] of expected) {
    const own = found.find(([other]) => other === index)?.[1];
    assert.ok(Math.abs(own - probability) <= 1e-4, `class ${index}: ${own} in the page, ${probability} on the command line`);
  }
}

const status = text => page.waitForFunction(text => document.querySelector('#main [role=status]')?.textContent.includes(text), text);

test('a digit that is drawn is answered as the command line answers it', async () => {
  await page.goto(PAGE);
  const box = await page.locator('.pad').boundingBox();
  const move = (x, y) => page.mouse.move(box.x + x * box.width, box.y + y * box.height, { steps: 8 });
  await move(0.25, 0.2);
  await page.mouse.down();
  await move(0.75, 0.2);
  await move(0.45, 0.85);
  await page.mouse.up();
  await status(' ms ');
  // What came while it computed is answered, too.
  await page.waitForTimeout(1000);
  const grey = await page.$eval('.digits .image canvas', canvas =>
    [...canvas.getContext('2d').getImageData(0, 0, 32, 32).data].filter((_, i) => i % 4 === 0));
  const image = join(folder, 'digit.png');
  writeFileSync(image, png(Buffer.from(grey), 32, 32));
  const found = await answers();
  assertSame(found, predicted(image, '--model', 'lenet5', '--weights', WEIGHTS));
  assert.equal(found[0][0], 7, 'a seven is a seven');
});

test('a layer shows its maps, and the arithmetic of a value comes to that value', async () => {
  for (const link of ['#n1', '#n3']) {
    await page.locator(`.picture a[href="${link}"]`).first().click();
    await page.waitForFunction(() => document.querySelectorAll('.tiles button').length >= 6);
    await page.getByRole('spinbutton', { name: 'Channel' }).fill('3');
    await page.getByRole('spinbutton', { name: 'Row' }).fill('2');
    await page.waitForFunction(() => {
      const [value, sum] = [document.querySelector('.layer').dataset.value, document.querySelector('.layer section').dataset.value];
      return sum !== undefined && Math.abs(value - sum) <= 1e-4 * Math.max(1, Math.abs(value));
    });
  }
  assert.match(await page.locator('.facts').textContent(), /Receptive field/);
});

test('a photograph that is dropped is answered as the command line answers it', async () => {
  await page.goto(`${PAGE}#photos`);
  const description = JSON.parse(readFileSync(join(PAGE_FOLDER, 'networks', `${NETWORK}.json`), 'utf8'));
  const [file, image] = [join(folder, `${NETWORK}-random.safetensors`), join(folder, 'picture.png')];
  writeFileSync(file, weights(description));
  writeFileSync(image, picture(320, 250));
  await page.getByLabel('Weights').setInputFiles(file);
  await status('Choose an image');
  await page.evaluate(bytes => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], 'picture.png', { type: 'image/png' }));
    document.querySelector('.drop').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true }));
  }, [...readFileSync(image)]);
  await status(' ms ');
  assertSame(await answers(), predicted(image, '--model', NETWORK, '--weights', file));
});

test('a photograph that comes with the page is answered as the command line answers it', async () => {
  const before = await answers();
  await page.getByRole('button', { name: 'A cat' }).click();
  await page.waitForFunction(before => {
    const top = document.querySelector('.answers li')?.dataset.probability;
    return top && Number(top) !== before;
  }, before[0][1]);
  const file = join(folder, `${NETWORK}-random.safetensors`);
  assertSame(await answers(), predicted(join(PAGE_FOLDER, 'photos', 'cat.jpg'), '--model', NETWORK, '--weights', file));
});

test('maps over the image say what speaks for a class', async () => {
  await page.getByRole('button', { name: 'Grad-CAM' }).click();
  await page.waitForFunction(() => document.querySelector('.evidence [role=status]').textContent.startsWith('Grad-CAM at Concat'));
  const size = await page.$eval('.image canvas + canvas', ({ width, height }) => [height, width]);
  assert.deepEqual(size, [13, 13]);
  await page.getByRole('button', { name: 'Occlusion' }).click();
  await page.waitForFunction(() => /^[1-9]\d* of 49/.test(document.querySelector('.evidence [role=status]').textContent));
  await page.getByRole('button', { name: 'Image alone' }).click();
});

test('blocks open, and layers in them', async () => {
  await page.locator('.picture a[href^="#b"]').nth(1).click();
  await page.locator('.picture a[href^="#n"]').first().click();
  await page.waitForFunction(() => document.querySelectorAll('.tiles button').length > 0);
});

test('a file that is no weights is an error that says so', async () => {
  const file = join(folder, 'squeezenet1_1.czc');
  writeFileSync(file, 'no weights');
  await page.getByLabel('Weights').setInputFiles(file);
  await status('neither safetensors');
});

test('the lessons move', async () => {
  await page.goto(`${PAGE}#lessons/padding`);
  const lesson = page.locator('#lesson-padding');
  await lesson.getByRole('combobox').selectOption('1');
  assert.match(await lesson.locator('.sum').textContent(), /7×7/);
  await page.locator('#lesson-inception').getByRole('slider').fill('16');
  assert.match(await page.locator('#lesson-inception .sum').textContent(), /120\.4 .*12\.4/);
});

test('every control of every view has a name, in both languages', async () => {
  const roles = ['button', 'link', 'textbox', 'slider', 'spinbutton', 'combobox', 'checkbox', 'image', 'application', 'navigation'];
  const session = await page.context().newCDPSession(page);
  for (const language of ['en', 'zh']) {
    for (const view of ['digits', 'photos', 'lessons']) {
      await page.goto(`${PAGE}?lang=${language}#${view}`);
      if (view === 'digits') {
        await page.locator('.picture a[href="#n1"]').first().click();
        await page.waitForSelector('.layer');
      }
      const { nodes } = await session.send('Accessibility.getFullAXTree');
      const controls = nodes.filter(node => !node.ignored && roles.includes(node.role?.value));
      const nameless = controls.filter(node => !node.name?.value.trim()).map(node => `${node.role.value} ${node.backendDOMNodeId}`);
      assert.deepEqual(nameless, [], `${view} in ${language}`);
      assert.ok(controls.length > 4, `${view} in ${language} has ${controls.length} controls`);
    }
  }
});

test('the language changes all that is said', async () => {
  await page.goto(`${PAGE}?lang=en#digits`);
  await page.waitForSelector('.picture svg');
  await page.getByRole('button', { name: 'An example' }).click();
  await status(' ms ');
  const answered = await answers();
  const english = await page.$$eval('[data-t], #main p, #main h2, #main button', all => all.map(element => element.textContent));
  await page.getByLabel('Language').selectOption('zh');
  assert.equal(await page.getAttribute('html', 'lang'), 'zh');
  await status(' 毫秒');
  assertSame(await answers(), answered);
  const chinese = await page.$$eval('[data-t], #main p, #main h2, #main button', all => all.map(element => element.textContent));
  const same = chinese.filter(text => /[a-z]{4}/.test(text) && english.includes(text));
  assert.deepEqual(same, []);
});

test('nothing was asked of another server, and nothing failed', () => {
  assert.deepEqual(foreign, []);
  assert.deepEqual(errors, []);
});
