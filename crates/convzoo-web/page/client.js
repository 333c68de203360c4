// The page's side of the worker: `ask` promises an answer.
export class Client {
  constructor() {
    this.worker = new Worker('worker.js', { type: 'module' });
    this.waiting = new Map();
    this.count = 0;
    // What is posted before the worker listens would be lost.
    const ready = new Promise(resolve => { this.isReady = resolve; });
    this.post = async (message, transfer) => { await ready; this.worker.postMessage(message, transfer); };
    this.worker.addEventListener('message', ({ data }) => {
      if (data.ready) return this.isReady();
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      return data.error === undefined ? resolve(data.answer) : reject(new Error(data.error));
    });
  }

  ask(request, source) {
    const id = this.count++;
    const transfer = source instanceof ArrayBuffer ? [source] : [];
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.post({ id, request, source }, transfer);
    });
  }
}

const cache = new Map();

// A file of the page's as JSON, once.
export function json(path) {
  if (!cache.has(path)) {
    cache.set(path, fetch(path).then(response => {
      if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
      return response.json();
    }));
  }
  return cache.get(path);
}

// Opens a network: its description without what is only drawn, and the weights.
export async function open(client, name, weights) {
  const [description, read] = await Promise.all([json(`networks/${name}.json`), client.ask({ ask: 'weights' }, weights)]);
  const { model, preprocessing, graph } = description;
  const { text } = await client.ask({ ask: 'open', description: { model, preprocessing, graph } });
  return { name, description, about: read.text.about, ...text };
}
