// <llmkit-model>: a text, and what the model makes of it. Attributes: text, which is in the box at
// first; open, the panels that are open then (next attention surprise tokens); wait, where nothing
// is to be read from the server before a click.

import {Model, Writer, darts, draw, get, probabilities, ranked} from "./model.js";
import {Unknown, makeTokenizer} from "./tokenizer.js";

const HERE = new URL(".", import.meta.url);
const BARS = 10, CELLS = 24, MOST = 4000, LISTED = 400, PAUSE = 40;  // the last in milliseconds
const SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥"};
const NAMES = {" ": "space", "\n": "line end", "\t": "tab"};
const shown = (piece) => piece.replace(/[ \n\t]/g, (sign) => SIGNS[sign]) || "·";
const named = (piece) => piece.replace(/[ \n\t]/g, (sign) => ` ${NAMES[sign]} `).trim() || "part of a character";
const percent = (share) => `${(100 * share).toFixed(1)} %`;

const MARKUP = `
<link rel="stylesheet" href="${new URL("page.css", HERE)}">
<p><strong id="name"></strong> <span id="note" class="soft"></span></p>
<p id="gate"><button id="start" class="main" type="button">Start the model</button>
  <span class="soft">It runs in this browser, for which 15 MB are read from this site.</span></p>
<div id="loading" hidden><label for="arrived">The model is on its way</label>
  <progress id="arrived" max="1" value="0"></progress></div>
<p id="error" class="wrong" role="alert" hidden></p>
<div id="live" hidden>
  <label for="text">Your text</label>
  <textarea id="text" rows="4" maxlength="${MOST}" spellcheck="false" aria-describedby="wrong"></textarea>
  <p id="wrong" class="wrong" role="alert" hidden></p>
  <div class="buttons">
    <button id="write" class="main" type="button">Write on</button>
    <button id="one" type="button">One more</button>
    <button id="stop" type="button" disabled>Stop</button>
    <button id="back" type="button" disabled>Take back</button>
  </div>
  <p id="done" class="soft" role="status"></p>
  <div class="settings" role="group" aria-label="How it draws">
    <label>Temperature <span id="temperature-is" aria-hidden="true"></span>
      <input id="temperature" type="range" min="0" max="2" step="0.05" value="0.8"></label>
    <label>Top p <span id="topp-is" aria-hidden="true"></span>
      <input id="topp" type="range" min="0.05" max="1" step="0.05" value="1"></label>
    <label>Length <input id="length" type="number" min="1" max="${MOST}" value="200"></label>
    <label>Seed <input id="seed" type="number" min="0" max="4294967295" value="1"></label>
  </div>
  <div id="seen" hidden>
  <details id="next"><summary>What comes next</summary>
    <p class="soft">The likeliest, with their shares at this temperature and top p. A click adds one.</p>
    <ol id="bars" class="bars"></ol></details>
  <label for="place">Look at one <span class="unit"></span> of the text</label>
  <input id="place" type="range" min="1" max="1" value="1">
  <p id="readout"></p>
  <details id="attention"><summary>What it looks at</summary>
    <div class="settings">
      <label>Layer <select id="layer"></select></label>
      <label>Head <select id="head"></select></label></div>
    <div id="map"></div>
    <p class="soft">Each row is a <span class="unit"></span> that asks; the stronger a cell's colour, the more it takes from
      the one above that column. The framed row is the one chosen above.</p></details>
  <details id="surprise"><summary>What surprises it</summary>
    <p id="mean"></p>
    <div id="spans" class="text"></div>
    <p class="soft">The stronger the colour and the thicker the line, the less it was expected.</p>
    <p id="most"></p></details>
  <details id="tokens"><summary>What it reads: tokens</summary>
    <p id="count"></p>
    <ol id="list" class="tokens"></ol></details>
  </div>
</div>`;

class LlmkitModel extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({mode: "open"}).innerHTML = MARKUP;
    this.$ = (id) => this.shadowRoot.getElementById(id);
    for (const panel of (this.getAttribute("open") ?? "").split(" ").filter(Boolean)) this.$(panel).open = true;
    this.turn = Promise.resolve();  // one job after the other: there is one cache
    this.version = 0;
    if (typeof WebAssembly === "undefined") {
      this.$("gate").hidden = true;
      this.fail("This browser has no WebAssembly, in which the model runs: open the page in another one.");
      return;
    }
    this.introduced = this.introduce();
    if (this.hasAttribute("wait")) this.$("start").addEventListener("click", () => this.start());
    else this.start();
  }

  fail(sentence) {
    this.$("loading").hidden = true;
    this.$("error").textContent = sentence;
    this.$("error").hidden = false;
  }

  async introduce() {
    try {
      this.about = await get(new URL("about.json", HERE), "json");
      this.$("name").textContent = this.about.name;
      this.$("note").textContent = this.about.note;
    } catch (error) {
      this.fail(error.message);
    }
  }

  async start() {
    this.$("gate").hidden = true;
    this.$("loading").hidden = false;
    try {
      const [{config}, fields] = await Promise.all(
        ["config.json", "tokenizer.json"].map((name) => get(new URL(name, HERE), "json")));
      this.tokenizer = makeTokenizer(fields);
      this.model = await Model.load(HERE, config, (share) => { this.$("arrived").value = share; });
      await this.introduced;
    } catch (error) {
      return this.fail(error.message);
    }
    this.writer = new Writer(this.model);
    this.room = this.model.config.block_size;
    this.build();
    await this.look();
    this.$("loading").hidden = true;
    this.$("live").hidden = false;
    if (this.hasAttribute("wait")) this.$("text").focus();
  }

  // What depends on the model, and who listens to what.
  build() {
    const {n_layer, n_head} = this.model.config;
    this.unit = this.tokenizer.bytes ? "token" : "character";
    for (const each of this.shadowRoot.querySelectorAll(".unit")) each.textContent = this.unit;
    const numbers = (n) => Array.from({length: n}, (_, i) => new Option(i + 1, i));
    this.$("layer").append(...numbers(n_layer));
    this.$("head").append(...numbers(n_head));
    this.$("layer").value = n_layer - 1;
    this.$("text").value = this.getAttribute("text") ?? this.about?.text ?? "";
    for (let n = 0; n < Math.min(BARS, this.tokenizer.size); n++) {
      const line = make("li", ""), button = make("button", "");
      button.type = "button";
      button.append(make("span", "letter"), make("span", ""), make("span", "share"));
      button.children[1].append(make("div", "bar"));
      button.addEventListener("click", () => this.choose(this.likely[n]));
      line.append(button);
      this.$("bars").append(line);
    }
    const on = (event, action, ...ids) => ids.forEach((id) => this.$(id).addEventListener(event, action));
    on("input", () => this.later(), "text");
    on("change", () => this.look(), "layer");
    on("change", () => this.showMap(), "head");
    on("input", () => this.showNext(), "temperature", "topp");
    on("input", () => { this.dart = null; }, "seed");
    on("input", () => this.showPlace(), "place");
    on("click", () => this.write(Number(this.$("length").value) || 1), "write");
    on("click", () => this.write(1, this.dart), "one");
    on("click", () => { this.halt = true; }, "stop");
    on("click", () => this.takeBack(), "back");
    on("click", (event) => this.pick(event), "spans", "list");
    this.shadowRoot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.halt = true;
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.$("write").click();
    });
  }

  // ------------------------------------------------------------------------------- reading

  // Wait until the jobs before this one are done.
  inTurn(job) {
    this.turn = this.turn.then(job).catch((error) => this.fail(`The model stopped: ${error.message}`));
    return this.turn;
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), 120);
  }

  // Read the text of the box, and show what there is to see.
  look() {
    const version = ++this.version;
    return this.inTurn(async () => {
      if (version !== this.version) return;
      const ids = this.read(this.$("text").value);
      if (!ids) return;
      // First what a long text costs: the cache is then left to the window that is written on.
      const long = ids.length > this.room ? await this.model.surprise(ids) : null;
      const found = await this.writer.begin(ids, Number(this.$("layer").value));
      this.ids = ids;
      this.pieces = this.tokenizer.pieces(ids);
      this.bits = long ?? found.bits;
      this.maps = found.maps;
      this.from = ids.length - this.writer.window.length;  // where the window begins
      this.show();
    });
  }

  // The text's ids; where it has none, null and a sentence beside the box.
  read(text) {
    let told = "", ids = null;
    try {
      ids = this.tokenizer.encode(text);
      if (!ids.length) told = "Type something: the model needs a beginning.";
    } catch (error) {
      if (!(error instanceof Unknown)) throw error;
      told = error.message;
    }
    this.$("wrong").textContent = told;
    this.$("wrong").hidden = !told;
    this.$("text").setAttribute("aria-invalid", Boolean(told));
    this.$("write").disabled = this.$("one").disabled = Boolean(told);
    return told ? null : ids;
  }

  // ------------------------------------------------------------------------------- writing

  // Draw so many tokens, shown as they come. dart: goes on from earlier draws, or begins anew.
  write(count, dart = null) {
    if (this.writing) return;
    this.writing = true;
    clearTimeout(this.timer);
    this.look();
    return this.inTurn(async () => {
      if (this.$("write").disabled) {  // the text is not one that it can read
        this.writing = false;
        return;
      }
      this.dart = dart ?? darts(Number(this.$("seed").value));
      const before = this.$("text").value, fresh = [];
      this.begin();
      const began = performance.now();
      let painted = began;
      try {
        while (fresh.length < count && !this.halt && before.length + fresh.length < MOST) {
          const id = draw(this.distribution(), this.dart());
          fresh.push(id);
          await this.writer.add(id);
          if (performance.now() - painted > PAUSE) {
            this.$("text").value = before + this.tokenizer.decode(fresh);
            this.showNext();
            await new Promise((resolve) => setTimeout(resolve));
            painted = performance.now();
          }
        }
      } finally {
        this.end(before, fresh, (performance.now() - began) / 1000);
      }
    });
  }

  begin() {
    this.halt = false;
    this.$("text").readOnly = true;  // the buttons stay as they are: a disabled one loses the focus
    this.$("stop").disabled = false;
  }

  end(before, fresh, seconds) {
    const added = this.tokenizer.decode(fresh), text = this.$("text");
    this.before = before;
    this.writing = false;
    text.value = before + added;
    text.readOnly = false;
    text.scrollTop = text.scrollHeight;
    if (this.shadowRoot.activeElement === this.$("stop")) this.$("write").focus();
    this.$("stop").disabled = true;
    this.$("back").disabled = false;
    const rate = Math.round(fresh.length / seconds);
    this.$("done").textContent = !fresh.length ? (this.halt ? "Stopped." : "The box is full: take something out.")
      : fresh.length === 1 ? `Added ${named(added)}.`
      : `${fresh.length} ${this.unit}s, ${rate} a second; seed ${this.$("seed").value}${this.halt ? "; stopped" : ""}.`;
    this.look();
  }

  takeBack() {
    this.$("text").value = this.before;
    this.$("back").disabled = true;
    this.$("done").textContent = "Taken back.";
    this.$("text").focus();
    this.look();
  }

  // Add a token that the reader chose.
  choose(id) {
    if (this.writing || this.$("write").disabled) return;
    this.before = this.$("text").value;
    this.$("text").value += this.tokenizer.decode([id]);
    this.$("back").disabled = false;
    this.look();
  }

  distribution() {
    return probabilities(this.writer.logits, Number(this.$("temperature").value), Number(this.$("topp").value));
  }

  // ------------------------------------------------------------------------------- showing

  show() {
    const place = this.$("place");
    const atEnd = place.value === place.max || place.max === "1";
    place.max = this.ids.length;
    if (atEnd) place.value = place.max;
    this.$("seen").hidden = false;
    this.showNext();
    this.showSurprise();
    this.showTokens();
    this.showPlace();
  }

  showNext() {
    for (const name of ["temperature", "topp"]) this.$(`${name}-is`).textContent = Number(this.$(name).value).toFixed(2);
    const p = this.distribution();
    this.likely = ranked(probabilities(this.writer.logits)).slice(0, BARS);
    [...this.$("bars").children].forEach((line, n) => {
      const id = this.likely[n], piece = this.tokenizer.pieces([id])[0], [button] = line.children;
      button.setAttribute("aria-label", `${named(piece)}, ${percent(p[id])}`);
      button.children[0].textContent = shown(piece);
      button.children[1].firstChild.style.width = `${100 * p[id]}%`;
      button.children[2].textContent = percent(p[id]);
    });
  }

  // The one that is looked at, in words and in all panels.
  showPlace() {
    const i = Number(this.$("place").value) - 1, n = this.ids.length;
    const name = `“${shown(this.pieces[i])}”, ${this.unit} ${i + 1} of ${n}`;
    const bits = i ? `, ${this.bits[i - 1].toFixed(2)} bits` : "";
    this.$("place").setAttribute("aria-valuetext", `${named(this.pieces[i])}, ${i + 1} of ${n}${bits}`);
    const cost = i === 0 ? "nothing comes before it to predict it from"
      : `it cost ${this.bits[i - 1].toFixed(2)} bits, for a share of ${percent(2 ** -this.bits[i - 1])}`;
    const row = this.row(i), from = this.from;
    let looks = " It is no longer in the model's window.";
    if (row) {
      const best = ranked(row).slice(0, 3).map((j) => `“${shown(this.pieces[from + j])}” ${i - from - j} back, ${percent(row[j])}`);
      looks = ` It looks most at ${best.join("; ")}.`.replaceAll(" 0 back", " itself");
    }
    this.$("readout").textContent = `${name}: ${cost}.${looks}`;
    for (const id of ["spans", "list"]) {
      this.$(id).querySelector(".chosen")?.classList.remove("chosen");
      this.$(id).querySelector(`[data-place="${i}"]`)?.classList.add("chosen");
    }
    this.showMap();
  }

  // What token i of the text looks at: weights of the window's tokens up to itself.
  row(i) {
    return this.maps[Number(this.$("head").value)][i - this.from];
  }

  showMap() {
    const i = Number(this.$("place").value) - 1, n = this.ids.length, from = this.from;
    const end = Math.min(n, Math.max(i + 1, from + CELLS)), first = Math.max(from, end - CELLS);
    const size = 10 * (end - first + 1), parts = [];
    for (let t = first; t < end; t++) {
      const at = 10 * (t - first + 1), row = this.row(t);
      const letter = escaped(shown([...this.pieces[t]].slice(0, 2).join("")));
      parts.push(`<text x="${at + 5}" y="8">${letter}</text><text x="5" y="${at + 8}">${letter}</text>`);
      for (let s = first; s <= t; s++) {
        const cell = `x="${10 * (s - first + 1)}" y="${at}" width="10" height="10"`;
        parts.push(`<rect ${cell} fill-opacity="${row[s - from].toFixed(3)}"/><rect class="cell" ${cell}/>`);
      }
      if (t === i) parts.push(`<rect class="frame" x="0" y="${at}" width="${at + 10}" height="10"/>`);
    }
    const said = `Attention of head ${Number(this.$("head").value) + 1} in layer ${Number(this.$("layer").value) + 1}`
      + ` over ${this.unit}s ${first + 1} to ${end}; the chosen one's weights are told above`;
    this.$("map").innerHTML = `<svg viewBox="0 0 ${size} ${size}" role="img" aria-label="${said}"`
      + ` style="max-width: min(100%, ${1.1 * (end - first + 1)}rem)">${parts.join("")}</svg>`;
  }

  showSurprise() {
    const spans = this.pieces.map((piece, i) => {
      const bits = i ? this.bits[i - 1] : 0, span = make("span", "");
      span.textContent = piece.replaceAll("\n", "↵\n");
      span.style.setProperty("--bits", Math.min(8, bits).toFixed(2));
      span.dataset.place = i;
      span.title = i ? `${bits.toFixed(2)} bits` : "the first";
      return span;
    });
    this.$("spans").replaceChildren(...spans);
    const n = [...this.pieces.slice(1).join("")].length, sum = this.bits.reduce((a, b) => a + b, 0);
    this.$("mean").textContent = n ? `${(sum / n).toFixed(3)} bits per character, over ${n.toLocaleString("en")}`
      + " predicted (one bit is the toss of a coin)." : "One more, and there is something to predict.";
    const worst = ranked(this.bits).slice(0, 5).map((i) => `“${shown(this.pieces[i + 1])}” ${this.bits[i].toFixed(1)}`);
    this.$("most").textContent = worst.length ? `Most surprising, in bits: ${worst.join(", ")}.` : "";
  }

  showTokens() {
    const first = Math.max(0, this.ids.length - LISTED);
    const lines = this.ids.slice(first).map((id, i) => {
      const line = make("li", ""), letter = make("span", "letter"), number = make("small", "");
      letter.textContent = shown(this.pieces[first + i]);
      number.textContent = id;
      line.append(letter, number);
      line.dataset.place = first + i;
      return line;
    });
    this.$("list").replaceChildren(...lines);
    const n = this.ids.length, all = [...this.pieces.join("")].length;
    this.$("count").textContent = `${n.toLocaleString("en")} of ${this.tokenizer.size.toLocaleString("en")} possible`
      + ` tokens for ${all.toLocaleString("en")} characters; below each its id${first ? ` (the last ${LISTED})` : ""}.`;
  }

  pick(event) {
    const place = event.target.closest("[data-place]")?.dataset.place;
    if (place === undefined) return;
    this.$("place").value = Number(place) + 1;
    this.showPlace();
  }
}

function make(kind, name) {
  const element = document.createElement(kind);
  if (name) element.className = name;
  return element;
}

const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

customElements.define("llmkit-model", LlmkitModel);
