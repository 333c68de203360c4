// Small lessons that follow the course, each with something to move.
import { make } from './dom.js';
import { depth } from './lessons/depth.js';
import { mixing } from './lessons/mixing.js';
import { narrowing } from './lessons/narrowing.js';
import { rectifying } from './lessons/rectifying.js';
import { sliding } from './lessons/sliding.js';
import { current, t } from './words.js';

// Each lesson by the name of its page in the course.
const LESSONS = {
  convolution: ['edges', 'convolutionTold', () => sliding({ kernel: [1, 0, -1, 1, 0, -1, 1, 0, -1] })],
  padding: ['padding', 'paddingTold', () => sliding({ kernel: Array(9).fill(1), choose: 'padding', choices: [0, 1, 2] })],
  stride: ['stride', 'strideTold', () => sliding({ kernel: Array(9).fill(1), choose: 'stride', choices: [1, 2, 3] })],
  pooling: ['pooling', 'poolingTold', () => sliding({ pool: true })],
  relu: ['activations', 'reluTold', rectifying],
  'one-by-one': ['one-by-one', 'oneTold', mixing],
  inception: ['inception', 'inceptionTold', narrowing],
  residual: ['residual', 'residualTold', depth],
};

const BOOK = 'https://github.com/convzoo/convzoo/blob/main/docs/src/course/';

export function lessons() {
  const sections = Object.entries(LESSONS).map(([name, [page, told, build]]) => {
    const href = `${BOOK}${current() === 'zh' ? 'zh/' : ''}${page}.md`;
    return make('section', { class: 'lesson', id: `lesson-${name}`, 'aria-label': t(`lesson_${name}`) },
      make('h2', {}, t(`lesson_${name}`)), make('p', {}, t(told)), build(),
      make('p', {}, make('a', { href, rel: 'noreferrer' }, t('course'))));
  });
  return make('div', {}, make('p', {}, t('lessonsIntro')), ...sections);
}
