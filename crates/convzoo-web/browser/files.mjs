// Files that tests need: pictures, and weights drawn at random.
import { crc32, deflateSync } from 'node:zlib';

// Numbers from 0 to 1 that depend on the seed alone.
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// A PNG of bytes, grey or red, green and blue.
export function png(bytes, width, height) {
  const channels = bytes.length / (width * height);
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind, 'latin1'), data]);
    const head = Buffer.alloc(4), tail = Buffer.alloc(4);
    head.writeUInt32BE(data.length);
    tail.writeUInt32BE(crc32(body));
    return Buffer.concat([head, body, tail]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  header.set([8, channels === 3 ? 2 : 0], 8);
  const rows = Array.from({ length: height }, (_, y) =>
    Buffer.concat([Buffer.from([0]), Buffer.from(bytes.slice(y * width * channels, (y + 1) * width * channels))]));
  return Buffer.concat([Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.concat(rows))), chunk('IEND', Buffer.alloc(0))]);
}

// Something to look at: waves of three colours, and noise.
export function picture(width, height) {
  const next = random(7);
  const bytes = Buffer.alloc(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    const [x, y] = [i % width, Math.floor(i / width)];
    [Math.sin(x / 9), Math.cos(y / 13), Math.sin((x + y) / 21)].forEach((wave, channel) => {
      bytes[3 * i + channel] = 127 + 90 * wave + 30 * next();
    });
  }
  return png(bytes, width, height);
}

// A file of tensors, each [name, shape, values].
export function safetensors(tensors) {
  const header = {}, parts = [];
  let at = 0;
  for (const [name, shape, values] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at += 4 * values.length] };
    parts.push(Buffer.from(values.buffer, values.byteOffset, 4 * values.length));
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...parts]);
}

// Weights for a network's description, of the spread that keeps the size of what flows through it.
export function weights({ graph }, seed = 1) {
  const next = random(seed);
  return safetensors(graph.nodes.flatMap(node => node.parameters).map(({ name, shape }) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const isScale = name.endsWith('running_var') || (name.endsWith('weight') && shape.length === 1);
    const spread = shape.length > 1 ? Math.sqrt(6 * shape[0] / count) : 0.1;
    return [name, shape, Float32Array.from({ length: count }, () => isScale ? 0.8 + 0.4 * next() : spread * (2 * next() - 1))];
  }));
}
