// Computes, so that the page need not wait. One message at a time: { id, request, source }, where `source` is a file, a
// buffer or an address of this page's whose bytes go with the request.
import { Engine, program } from './engine.js';

let engine = Engine.load(await fetch(program()));

const bytesOf = async source => {
  if (typeof source !== 'string') return new Uint8Array(source instanceof Blob ? await source.arrayBuffer() : source ?? []);
  const response = await fetch(source);
  if (!response.ok) throw new Error(`${source}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
};

let last = Promise.resolve();
self.addEventListener('message', ({ data }) => { last = last.then(() => handle(data)); });

async function handle({ id, request, source }) {
  try {
    const bytes = await bytesOf(source);
    const begun = performance.now();
    const answer = (await engine).answer(request, bytes);
    const ms = performance.now() - begun;
    self.postMessage({ id, answer: { ...answer, ms } }, [answer.values.buffer, answer.bytes.buffer]);
  } catch (error) {
    // After a trap the program's memory is not to be trusted: a new one begins without a network.
    if (error.fatal) engine = Engine.load(await fetch(program()));
    self.postMessage({ id, error: error.message });
  }
}
self.postMessage({ ready: true });
