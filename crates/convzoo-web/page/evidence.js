// What speaks for a class: maps over the image.
import { button, labelled, make, most } from './dom.js';
import { t } from './words.js';

export function evidence(client, opened, image, order) {
  const classes = opened.nodes.at(-1).shape[0];
  const chosen = make('select', {}, ...order.map(index => make('option', { value: index }, opened.labels[index] ?? String(index))));
  const told = make('p', { class: 'soft', role: 'status' });
  let running = 0;
  const halt = () => { running++; };

  // The map as warm colour where it is positive, cold where negative, clearer than the image where it is large.
  function cover(values, [height, width]) {
    const full = most(values);
    const canvas = make('canvas', { width, height, style: 'image-rendering: auto' });
    const context = canvas.getContext('2d');
    const picture = context.createImageData(width, height);
    for (let i = 0; i < values.length; i++) {
      const share = full > 0 ? values[i] / full : 0;
      picture.data.set(share >= 0 ? [255, 110, 0] : [30, 120, 255], 4 * i);
      picture.data[4 * i + 3] = 190 * Math.abs(share);
    }
    context.putImageData(picture, 0, 0);
    image.cover(canvas);
  }

  async function gradCam() {
    halt();
    const { text, values } = await client.ask({ ask: 'gradCam', class: Number(chosen.value) });
    cover(values, text.size);
    const { name, kind } = opened.nodes[text.node];
    told.textContent = t('gradCamTold', { name: name || `${kind} (${text.node})` });
  }

  async function occlusion() {
    halt();
    const mine = running;
    let answer = await client.ask({ ask: 'occlude', class: Number(chosen.value) });
    while (mine === running && answer.text.done < answer.text.all) {
      answer = await client.ask({ ask: 'occludeNext' });
      if (mine !== running) return;
      cover(answer.values, opened.input.slice(1));
      told.textContent = t('occlusionTold', answer.text);
    }
  }

  const run = work => () => work().catch(error => { told.textContent = error.message; });
  const alone = () => { halt(); image.cover(null); told.textContent = ''; };
  const element = make('section', { class: 'evidence' }, make('h3', {}, t('speaks')),
    make('div', { class: 'row' }, labelled(t('class'), chosen)),
    make('div', { class: 'row' }, button(t('gradCam'), run(gradCam)), button(t('occlusion'), run(occlusion)),
      button(t('none'), alone)),
    told);
  element.hidden = classes < 2;
  return { element, stop: halt };
}
