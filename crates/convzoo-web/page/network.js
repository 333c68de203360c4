// A network as a drawing whose blocks open and whose layers show what is in them.
import { make } from './dom.js';
import { layer } from './layer.js';
import { t } from './words.js';

let styled = false;

// `image` is what receptive fields are drawn over, as `layered` makes it.
export function network(client, opened, image) {
  const { pictures, style } = opened.description;
  if (!styled) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(style);
    document.adoptedStyleSheets.push(sheet);
    styled = true;
  }
  const trail = make('p', { class: 'row' });
  const picture = make('nav', { class: 'picture', 'aria-label': t('layers') });
  const inside = make('div');
  const element = make('section', {},
    make('h2', {}, t('layers')), make('p', { class: 'soft' }, t('pick')),
    make('div', { class: 'network' }, make('div', {}, trail, picture), inside));
  let shown = null;

  function draw(block) {
    const drawn = pictures.find(picture => picture.block === block);
    picture.innerHTML = drawn.svg;
    picture.scrollTop = 0;
    const parents = pictures.filter(({ path }) => path && (drawn.path === path || drawn.path.startsWith(`${path}.`)));
    const link = (text, block) => make('a', { href: `#b${block}` }, text);
    trail.replaceChildren(...[link(t('whole'), 0), ...parents.flatMap(({ path, block }) => ['›', link(path, block)])]);
  }

  function pick(node, link) {
    const nodes = pictures.flatMap(({ layers }) => layers).find(nodes => nodes[0] === node) ?? [node];
    for (const other of picture.querySelectorAll('[aria-current]')) other.removeAttribute('aria-current');
    link?.setAttribute('aria-current', 'true');
    shown?.close();
    shown = layer(client, opened, nodes, image);
    inside.replaceChildren(shown.element);
    return shown.refresh();
  }

  element.addEventListener('click', event => {
    const link = event.target.closest('a');
    const [, kind, number] = link?.getAttribute('href').match(/^#([bn])(\d+)$/) ?? [];
    if (!kind) return;
    event.preventDefault();
    if (kind === 'b') draw(Number(number));
    else pick(Number(number), link);
  });
  draw(0);
  // For another image: what is shown is computed anew.
  return { element, refresh: () => shown?.refresh() };
}
