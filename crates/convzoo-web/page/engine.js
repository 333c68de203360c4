// The program in WebAssembly: requests in, answers out. What can be asked is `Request` in src/session.rs.

// Two functions of a single instruction each: `f32x4.splat`, and `f32x4.relaxed_madd`. A browser that takes the module has
// the instructions.
const module = (...body) => new Uint8Array(
  [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, body.length + 4, 1, body.length + 2, 0, ...body, 11]);
const splat = [67, 0, 0, 0, 0, 253, 19];
const SIMD = module(...splat);
const RELAXED = module(...splat, ...splat, ...splat, 253, 133, 2);

// The fastest of the three programs that this browser can run.
export function program() {
  if (WebAssembly.validate(RELAXED)) return 'convzoo-relaxed.wasm';
  return WebAssembly.validate(SIMD) ? 'convzoo-simd.wasm' : 'convzoo.wasm';
}

export class Engine {
  static async load(source) {
    const { instance } = source instanceof Response
      ? await WebAssembly.instantiateStreaming(source) : await WebAssembly.instantiate(source);
    return new Engine(instance.exports);
  }

  constructor(exports) { this.exports = exports; }

  // Returns { text, values, bytes }: an object, a Float32Array, a Uint8Array, all of the caller's own.
  answer(request, bytes = new Uint8Array()) {
    const { memory, reserve, answer } = this.exports;
    const text = new TextEncoder().encode(JSON.stringify(request));
    try {
      const at = reserve(text.length + bytes.length) >>> 0;
      new Uint8Array(memory.buffer).set(text, at);
      new Uint8Array(memory.buffer).set(bytes, at + text.length);
      // Memory that grows is another buffer: it is looked at after the call.
      const place = answer(text.length) >>> 0;
      const pieces = new Uint32Array(memory.buffer, place, 6);
      const copy = (Kind, place) => new Kind(memory.buffer, pieces[place], pieces[place + 1]).slice();
      const found = JSON.parse(new TextDecoder().decode(copy(Uint8Array, 0)));
      if (found.error) throw new Error(found.error);
      return { text: found, values: copy(Float32Array, 2), bytes: copy(Uint8Array, 4) };
    } catch (error) {
      if (!(error instanceof WebAssembly.RuntimeError)) throw error;
      const place = this.exports.failure() >>> 0;
      const [from, length] = new Uint32Array(memory.buffer, place, 2);
      const told = new TextDecoder().decode(new Uint8Array(memory.buffer, from, length).slice());
      throw Object.assign(new Error(told || error.message), { fatal: true });
    }
  }
}
