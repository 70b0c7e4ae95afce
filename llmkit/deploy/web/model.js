// The model: what onnxruntime-web computes, the key-value cache around it, and the drawing of tokens.
// Shapes as in graph.py: T tokens, S tokens before them, L layers, H heads, D features, V vocabulary.

const CHUNK = 64;  // tokens read at a time: a long text keeps neither the page nor its memory

export class Model {
  // base: the address of the folder. told: called with the share that has arrived, 0 to 1.
  static async load(base, config, told = () => {}) {
    const ort = await import(new URL("ort.js", base));
    ort.env.wasm.numThreads = 1;  // more would need headers that a plain file server does not send
    ort.env.wasm.wasmBinary = await get(new URL("ort.wasm", base), "arrayBuffer", told);
    const graph = new Uint8Array(await get(new URL("model.onnx", base), "arrayBuffer"));
    const session = await ort.InferenceSession.create(graph, {executionProviders: ["wasm"]});
    return new Model(ort, session, config);
  }

  constructor(ort, session, config) {
    Object.assign(this, {ort, session, config});
    this.D = config.n_embd / config.n_head;
    this.rows = config.n_layer * config.n_head;  // of the cache, each (S, D)
    const room = this.rows * config.block_size * this.D;
    this.keys = new Float32Array(room);
    this.values = new Float32Array(room);
    this.forget();
  }

  forget() { this.S = 0; }

  // ids (T,), after what was read before -> logits (T, V), and where a layer is named its attention
  // (H, T, S + T). It forgets nothing, so S + T may be at most block_size.
  async read(ids, layer = null) {
    const {ort, config, S, D} = this, T = ids.length;
    const past = [config.n_layer, config.n_head, S, D];
    const feeds = {
      ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [T]),
      keys: new ort.Tensor("float32", this.gather(this.keys), past),
      values: new ort.Tensor("float32", this.gather(this.values), past),
    };
    const wanted = ["logits", "new_keys", "new_values"];
    if (layer !== null) wanted.push(`attention.${layer}`);
    const found = await this.session.run(feeds, wanted);
    this.scatter(this.keys, found.new_keys.data, T);
    this.scatter(this.values, found.new_values.data, T);
    this.S += T;
    return {logits: found.logits.data, attention: found[`attention.${layer}`]?.data};
  }

  // The S places that are filled, without the room behind them.
  gather(cache) {
    const room = this.config.block_size * this.D, used = this.S * this.D;
    const out = new Float32Array(this.rows * used);
    for (let row = 0; row < this.rows; row++)
      out.set(cache.subarray(row * room, row * room + used), row * used);
    return out;
  }

  scatter(cache, fresh, T) {
    const room = this.config.block_size * this.D, size = T * this.D;
    for (let row = 0; row < this.rows; row++)
      cache.set(fresh.subarray(row * size, (row + 1) * size), row * room + this.S * this.D);
  }

  // A text of at most block_size ids from its beginning: the logits (V,) after the last, what each
  // target costs in bits, and of a layer the attention, H maps of T rows, row t with t + 1 weights.
  async readAll(ids, layer = null, targets = ids.slice(1)) {
    const V = this.config.vocab_size, H = this.config.n_head;
    const bits = [], maps = Array.from({length: H}, () => []);
    let last = null;
    this.forget();
    for (let start = 0; start < ids.length; start += CHUNK) {
      const part = ids.slice(start, start + CHUNK), T = part.length;
      const {logits, attention} = await this.read(part, layer);
      for (let t = 0; t < T && start + t < targets.length; t++)
        bits.push(cost(logits.subarray(t * V, (t + 1) * V), targets[start + t]));
      last = logits.slice((T - 1) * V);
      for (let h = 0; attention && h < H; h++)
        for (let t = 0; t < T; t++) {
          const row = (h * T + t) * this.S;
          maps[h].push(attention.slice(row, row + start + t + 1));
        }
    }
    return {logits: last, bits, maps};
  }

  // What each id but the first costs in bits, in windows that do not overlap: llmkit's `evaluate`.
  async surprise(ids) {
    const room = this.config.block_size, bits = [];
    for (let start = 0; start + 1 < ids.length; start += room) {
      const targets = ids.slice(start + 1, start + 1 + room);
      bits.push(...(await this.readAll(ids.slice(start, start + room), null, targets)).bits);
    }
    return bits;
  }
}

// Text that grows, as llmkit's `generate` makes it grow: a full window keeps its last half.
export class Writer {
  constructor(model) { this.model = model; }

  async begin(ids, layer = null) {
    this.window = ids.slice(-fitting(ids.length, this.model.config.block_size));
    const found = await this.model.readAll(this.window, layer);
    this.logits = found.logits;
    return found;
  }

  async add(id) {
    const room = this.model.config.block_size;
    if (this.window.length < room) {
      this.window.push(id);
      this.logits = (await this.model.read([id])).logits;
    } else {
      this.window = [...this.window.slice(room - Math.floor(room / 2)), id];
      this.logits = (await this.model.readAll(this.window)).logits;
    }
  }
}

// How many of T tokens the window holds.
export function fitting(T, room) {
  const half = Math.floor(room / 2), over = T - room;
  return over <= 0 ? T : half + 1 + ((over - 1) % (room - half));
}

// -log2 of the share that softmax gives to an id.
export function cost(logits, id) {
  let most = -Infinity, sum = 0;
  for (const each of logits) most = Math.max(most, each);
  for (const each of logits) sum += Math.exp(each - most);
  return (Math.log(sum) - (logits[id] - most)) / Math.LN2;
}

// The distribution to draw from, as llmkit's `next_token_probabilities`: first the temperature, then
// the fewest likeliest tokens whose share reaches topP.
export function probabilities(logits, temperature = 1, topP = 1) {
  let best = 0, sum = 0;
  logits.forEach((each, id) => { if (each > logits[best]) best = id; });
  const p = new Float64Array(logits.length);
  if (temperature === 0) {
    p[best] = 1;
    return p;
  }
  for (let id = 0; id < p.length; id++) sum += p[id] = Math.exp((logits[id] - logits[best]) / temperature);
  for (let id = 0; id < p.length; id++) p[id] = Math.fround(p[id] / sum);
  if (topP >= 1) return p;
  const kept = new Float64Array(p.length);
  let share = 0;
  for (const id of ranked(p, (1 - topP) / p.length)) {
    if (share > 0 && share >= topP) break;
    kept[id] = p[id];
    share += p[id];
  }
  return kept.map((each) => each / share);
}

// The ids whose share is at least so much, the likeliest first; among equals the lower id.
export function ranked(p, least = 0) {
  const ids = [];
  p.forEach((each, id) => { if (each >= least) ids.push(id); });
  return ids.sort((a, b) => p[b] - p[a] || a - b);
}

// Throw a dart, 0 <= dart < 1, at the shares laid end to end.
export function draw(p, dart) {
  let left = dart * p.reduce((sum, each) => sum + each, 0), last = 0;
  for (let id = 0; id < p.length; id++) {
    if (p[id] === 0) continue;
    if ((left -= p[id]) < 0) return id;
    last = id;
  }
  return last;
}

// Darts from a seed, the same in every browser: xorshift32 (Marsaglia 2003), whose first numbers
// after a small seed are small, and left out.
export function darts(seed) {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  for (let n = 0; n < 16; n++) next();
  return next;
}

// What is at an address; an error says which and why.
export async function get(address, kind, told = () => {}) {
  const name = address.pathname.split("/").pop();
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) {
    const why = answer ? `the server answers ${answer.status}` : "the server does not answer";
    throw new Error(`${name} could not be read (${why}): is the whole folder there?`);
  }
  if (kind === "json") return answer.json();
  const total = Number(answer.headers.get("Content-Length")), parts = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ;) {
    const {value, done} = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    told(Math.min(1, size / (total || size)));
  }
  return new Blob(parts).arrayBuffer();
}
