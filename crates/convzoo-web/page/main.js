// Which view is shown, and in which language.
import { current, choose, t } from './words.js';
import { digits } from './digits.js';
import { lessons } from './lessons.js';
import { photos } from './photos.js';

const VIEWS = { digits, photos, lessons };
const main = document.getElementById('main');
const language = document.getElementById('language');
// A view that was opened stays as it is until the language changes.
let shown = {};

function show() {
  const [asked, part] = location.hash.slice(1).split('/');
  const name = VIEWS[asked] ? asked : 'digits';
  shown[name] ??= VIEWS[name]();
  main.replaceChildren(shown[name]);
  for (const link of document.querySelectorAll('#views a')) {
    if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${t(name)} – convzoo`;
  if (part) document.getElementById(`lesson-${part}`)?.scrollIntoView();
}

function speak() {
  document.documentElement.lang = current();
  language.value = current();
  for (const element of document.querySelectorAll('[data-t]')) element.textContent = t(element.dataset.t);
  document.getElementById('views').setAttribute('aria-label', t('views'));
  shown = {};
  show();
}

language.addEventListener('change', () => { choose(language.value); speak(); });
addEventListener('hashchange', show);
speak();
