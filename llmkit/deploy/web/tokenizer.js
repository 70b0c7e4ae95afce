// Text to ids and back, as llmkit's CharTokenizer and BPETokenizer: of the fields of tokenizer.json.

export class Unknown extends Error {
  // A character for which there is no id, and its place, counted in characters from 0.
  constructor(character, place) {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    const shown = /\p{Cs}|\p{Cc}/u.test(character) ? "" : ` “${character}”`;
    super(`The model does not know${shown} (U+${code}), character ${place + 1} of the text: take it out.`);
    this.character = character;
    this.place = place;
  }
}

export function makeTokenizer(fields) {
  if (fields.kind === "character") return new Characters(fields);
  if (fields.kind === "bpe") return new BytePairs(fields);
  throw new Error(`This page reads characters or byte pairs, and the model's tokenizer is of kind ${fields.kind}.`);
}

class Characters {
  constructor({tokens, unknown}) {
    this.tokens = tokens;
    this.ids = new Map(tokens.map((token, id) => [token, id]));
    this.other = unknown === null ? undefined : this.ids.get(unknown);
  }

  get size() { return this.tokens.length; }

  encode(text) {
    return [...text].map((character, place) => {
      const id = this.ids.get(character) ?? this.other;
      if (id === undefined) throw new Unknown(character, place);
      return id;
    });
  }

  // The text of each id; all of them in a row are the text.
  pieces(ids) { return ids.map((id) => this.tokens[id]); }

  decode(ids) { return this.pieces(ids).join(""); }
}

// GPT-2's byte alphabet: a byte that can be seen in Latin-1 is spelled by itself, the others by
// U+0100, U+0101 and so on in turn.
const VISIBLE = [], HIDDEN = [];
for (let byte = 0; byte < 256; byte++) {
  const seen = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  (seen ? VISIBLE : HIDDEN).push(byte);
}
const SPELLED = new Map(VISIBLE.map((byte) => [byte, String.fromCharCode(byte)]));
HIDDEN.forEach((byte, n) => SPELLED.set(byte, String.fromCharCode(256 + n)));
const BYTE = new Map([...SPELLED].map(([byte, character]) => [character, byte]));

// JavaScript's \s is not Python's: here, white space is what Unicode says it is.
const [W, NOT_W] = ["\\p{White_Space}", "\\P{White_Space}"];
const ENDINGS = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+";
const REST = ` ?[^${W}\\p{L}\\p{N}]+`;
const WORDS = new RegExp(`${ENDINGS}| ?\\p{N}+|${REST}|${W}+(?!${NOT_W})|${W}+`, "gu");
const DIGITS = new RegExp(`${ENDINGS}|\\p{N}|${REST}|${W}+(?![^${W}\\p{N}])|${W}+`, "gu");

const spell = (text) => [...new TextEncoder().encode(text)].map((byte) => SPELLED.get(byte)).join("");
const unspell = (token) => Uint8Array.from(token, (character) => BYTE.get(character));

class BytePairs {
  constructor({merges, tokens, special_tokens: special, digits}) {
    const pairs = merges.map((line) => line.split(" "));
    const made = new Set([...SPELLED.values(), ...pairs.map(([left, right]) => left + right)]);
    const all = new Set(tokens ?? made);
    special.forEach((text) => all.add(spell(text)));
    const spelled = [...all];
    const ids = new Map(spelled.map((token, id) => [token, id]));
    const spare = ids.get(spell("<|endoftext|>")) ?? 0;
    this.bytes = spelled.map(unspell);
    this.pattern = digits ? DIGITS : WORDS;
    this.byteIds = Array.from({length: 256}, (_, byte) => ids.get(SPELLED.get(byte)) ?? spare);
    this.merges = new Map();  // of two ids: the rank of their merge, and what it makes
    pairs.forEach(([left, right], rank) => {
      const pair = this.pair(ids.get(left), ids.get(right));
      if (!this.merges.has(pair)) this.merges.set(pair, {rank, id: ids.get(left + right)});
    });
    this.known = new Map();  // words that have been met
  }

  get size() { return this.bytes.length; }

  pair(left, right) { return left * this.size + right; }

  encode(text) {
    const half = text.search(/\p{Cs}/u);  // half a surrogate pair has no bytes
    if (half >= 0) throw new Unknown(text[half], [...text.slice(0, half)].length);
    return (text.match(this.pattern) ?? []).flatMap((word) => this.word(word));
  }

  word(word) {
    if (!this.known.has(word)) {
      const ids = [...new TextEncoder().encode(word)].map((byte) => this.byteIds[byte]);
      this.known.set(word, this.merge(ids));
    }
    return this.known.get(word);
  }

  // The earliest merge first, and of several places the leftmost.
  merge(ids) {
    for (;;) {
      let best = null, place = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const found = this.merges.get(this.pair(ids[i], ids[i + 1]));
        if (found && (best === null || found.rank < best.rank)) [best, place] = [found, i];
      }
      if (best === null) return ids;
      ids.splice(place, 2, best.id);
    }
  }

  // A token may end within a character: that is told by the token which completes it.
  pieces(ids) {
    const decoder = new TextDecoder("utf-8", {ignoreBOM: true});
    const pieces = ids.map((id) => decoder.decode(this.bytes[id], {stream: true}));
    const rest = decoder.decode();
    if (rest) pieces.push(pieces.pop() + rest);
    return pieces;
  }

  decode(ids) { return this.pieces(ids).join(""); }
}
