// One model: its picture over the image, the entropies of its heads, and a small picture for each layer and head.

import { coloured, scaled, shade } from "./colours.js";
import { askJson, askPicture, askValues } from "./server.js";
import { prior, shown } from "./state.js";

const OF_TOKEN = ["reads", "read_by", "rollout_reads", "rollout_read_by"]; // kinds that depend on a token
const OF_HEAD = ["reads", "read_by", "clusters"];
export const HEADS = ["mean", "each"]; // what can be asked for in place of a head's number
const SLOW = 150; // milliseconds after which all layers and heads are not asked for while hovering
const SAYS = { reads: "reads most from", read_by: "is read most by" };

const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 1000 || Math.abs(value) < 0.001 ? value.toExponential(1) : value.toPrecision(3));
const named = (token) => (token === "cls" ? "The class token" : `Patch ${token}`);

export class Panel {
  constructor(place, facts) {
    this.place = place;
    this.facts = facts;
    this.turn = this.loads = 0;
    const template = document.getElementById("model").content.cloneNode(true);
    this.root = template.querySelector("article");
    this.part = (selector) => this.root.querySelector(selector);
    this.canvas = this.part(".view");
    this.grid = this.part(".grid");
    this.part("h2").textContent = facts.name; // while it is waited for
  }

  // Load what the model sees under a state; until it is there, the page goes on with what it had.
  async load(state) {
    const mine = ++this.loads;
    const plain = { model: this.place, ...shown(state) };
    let view = await askJson("view", plain); // says whether a prior can be asked for at all
    const query = { ...plain, ...(view.prior ? prior(state) : {}) };
    if (view.prior && Object.keys(prior(state)).length) view = await askJson("view", query);
    const grey = inGrey(await askPicture(query));
    if (mine !== this.loads) return;
    Object.assign(this, { view, grey, query });
    this.part(".prediction").textContent = view.prediction;
  }

  layerOf(state) {
    const last = this.view.layers.length - 1;
    return state.layer === "last" ? last : Math.min(Number(state.layer), last);
  }

  // The head of a state; of a model that has fewer it is the last.
  headOf(state) {
    return HEADS.includes(state.head) ? state.head : String(Math.min(Number(state.head), this.about(state).heads - 1));
  }

  about(state) {
    return this.view.layers[this.layerOf(state)];
  }

  // A token "row,column" of a grid as that of the same place on this model's grid.
  placed(token, grid, state) {
    const about = this.about(state);
    if (token === "cls") return about.class_token ? "cls" : null;
    const [height, width] = about.grid;
    const [row, column] = token.split(",").map(Number);
    const along = (place, from, to) => Math.min(Math.max(Math.floor(((place + 0.5) * to) / from), 0), to - 1);
    return `${along(row, grid[0], height)},${along(column, grid[1], width)}`;
  }

  asked(state, token) {
    const query = { ...this.query, kind: state.kind, layer: this.layerOf(state) };
    if (OF_TOKEN.includes(state.kind)) query.token = token;
    if (OF_HEAD.includes(state.kind)) query.head = this.headOf(state);
    const steps = this.about(state).steps;
    if (steps && state.step !== "" && ["reads", "read_by"].includes(state.kind)) query.step = Math.min(Number(state.step), steps);
    return query;
  }

  // Draw what a state shows for a token; only the newest of several calls draws.
  async show(state, token, passing = false) {
    const turn = ++this.turn;
    const waiting = setTimeout(() => this.root.classList.add("waiting"), 120);
    try {
      if (token === null && OF_TOKEN.includes(state.kind)) throw new Error("This model has no class token.");
      const given = await askValues(this.asked(state, token));
      if (turn !== this.turn) return;
      this.say("");
      this.paint(given, state, token);
      if (!passing || this.took < SLOW) await this.showEvery(state, token, turn);
    } catch (error) {
      if (turn !== this.turn) return;
      this.say(error.message);
      this.paint(null, state, token);
    } finally {
      clearTimeout(waiting);
      if (turn === this.turn) this.root.classList.remove("waiting");
    }
  }

  say(words) {
    const line = this.part(".error");
    line.textContent = words;
    line.hidden = !words;
  }

  paint(given, state, token) {
    const { canvas } = this;
    const count = given?.values.length ?? 1;
    const columns = Math.ceil(Math.sqrt(count));
    const [height, width] = this.view.size;
    const across = Math.round(this.part(".screen").clientWidth * Math.min(devicePixelRatio, 2)) || 480;
    const gap = count > 1 ? Math.round(across / 100) : 0;
    const side = (across - gap * (columns - 1)) / columns;
    const cell = [side, (side * height) / width];
    canvas.width = across;
    canvas.height = Math.round((cell[1] + gap) * Math.ceil(count / columns)) - gap;
    this.layout = { columns, step: [cell[0] + gap, cell[1] + gap], cell };
    this.given = given;
    const context = canvas.getContext("2d");
    const labels = state.kind === "clusters";
    for (let place = 0; place < count; place++) {
      const corner = [(place % columns) * (cell[0] + gap), Math.floor(place / columns) * (cell[1] + gap)];
      context.globalAlpha = given ? 1 - state.strength / 100 : 1;
      context.imageSmoothingEnabled = this.grey.width >= across;
      context.drawImage(this.grey, ...corner, ...cell);
      if (given) this.cover(context, given, place, corner, cell, state, token);
      context.globalAlpha = 1;
      if (OF_TOKEN.includes(state.kind) && token && token !== "cls") this.mark(context, token, state, corner, cell);
      if (count > 1) caption(context, state.kind === "atoms" ? `atom ${place + 1}` : `head ${place}`, corner);
    }
    this.legend(given, labels);
    this.tell(given, state, token);
  }

  // Add a picture to the image; as in the sheets of `maps` it is 0.4 of the grey image and 0.6 of the colour at first.
  cover(context, given, place, corner, cell, state, token) {
    const labels = state.kind === "clusters";
    const [height, width] = given.grid;
    const values = given.values[place].subarray(given.prefix);
    const only = labels && token && token !== "cls" && this.over ? values[at(token, width)] : null;
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(coloured(values, width, height, labels, only), 0, 0);
    context.globalAlpha = state.strength / 100;
    context.globalCompositeOperation = "lighter";
    context.imageSmoothingEnabled = false;
    context.drawImage(small, ...corner, ...cell);
    context.globalCompositeOperation = "source-over";
  }

  mark(context, token, state, corner, cell) {
    const [height, width] = this.about(state).grid;
    const [row, column] = token.split(",").map(Number);
    const size = [cell[0] / width, cell[1] / height];
    for (const [colour, line, outside] of [["#000", 4, 2], ["#fff", 2, 2]]) { // around the patch, which stays seen
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(corner[0] + column * size[0] - outside, corner[1] + row * size[1] - outside, size[0] + 2 * outside, size[1] + 2 * outside);
    }
  }

  legend(given, labels) {
    const [least, most] = [this.part(".least"), this.part(".most")];
    this.part(".bar").hidden = !given || labels;
    if (!given || labels) {
      [least.textContent, most.textContent] = ["", given ? "a colour for each cluster; hover to single one out" : ""];
      return;
    }
    const several = given.values.length > 1;
    const range = scaled(given.values[0].subarray(given.prefix));
    const negative = range.least < 0;
    const bar = this.part(".bar").getContext("2d");
    const pixels = new ImageData(256, 1);
    for (let x = 0; x < 256; x++) pixels.data.set([...shade(negative ? x / 127.5 - 1 : x / 255), 255], 4 * x);
    bar.putImageData(pixels, 0, 0);
    least.textContent = several ? "least" : short(negative ? -range.size : range.zero);
    most.textContent = several ? "most, each on a scale of its own" : short(range.size);
  }

  // Say in words what the picture shows, below it and for screen readers.
  tell(given, state, token) {
    const about = this.about(state);
    const head = state.kind === "clusters" && state.head === "mean" ? "each" : state.head; // labels have no mean
    const heads = { mean: ", mean of the heads", each: ", each head" }[head] ?? `, head ${this.headOf(state)}`;
    const where = `layer ${this.layerOf(state)}${OF_HEAD.includes(state.kind) ? heads : ""}`;
    const { name } = this.facts;
    const own = name === about.mixer || name.startsWith(`${about.mixer} (`); // it is named after its mixer
    this.part("h2").textContent = `${own ? name : `${name}: ${about.mixer}`}, ${where}`;
    this.part(".how").textContent = given?.how ? `How it is computed: ${given.how}.` : "";
    let words = "";
    if (given && given.values.length === 1 && state.kind !== "clusters") {
      const [values, width] = [given.values[0], given.grid[1]];
      let best = given.prefix;
      for (let place = best; place < values.length; place++) if (values[place] > values[best]) best = place;
      const peak = `${Math.floor((best - given.prefix) / width)},${(best - given.prefix) % width} (${short(values[best])})`;
      const rolled = state.kind.startsWith("rollout_") ? " through the layers" : "";
      const verb = SAYS[state.kind.replace("rollout_", "")];
      words = verb ? `${named(token)} ${verb} ${peak}${rolled}` : `Largest at ${peak}`;
      if (about.class_token && given.prefix) words += `; class token ${short(values[0])}`;
    }
    this.part(".said").textContent = words;
    this.canvas.setAttribute("aria-label", `${this.facts.name}, ${where}. ${words || "Pictures side by side."}`);
    this.words = words;
  }

  async showEntropies(state) {
    const [bars, none] = [this.part(".bars"), this.part(".none")];
    const query = { ...this.query, layer: this.layerOf(state) };
    const key = JSON.stringify(query);
    if (key !== this.entropiesOf) {
      this.entropiesOf = key;
      let found = [], words = "";
      try {
        found = (await askJson("entropies", query)).entropies;
      } catch (error) {
        words = error.message;
        if (!error.final && key === this.entropiesOf) this.entropiesOf = null; // to be asked for again
      }
      if (this.entropiesOf !== null && key !== this.entropiesOf) return;
      [none.textContent, none.hidden] = [words, !words];
      bars.replaceChildren(...found.map((value, head) => this.barOf(value, head)));
    }
    for (const [head, button] of [...bars.children].entries()) button.setAttribute("aria-pressed", String(String(head) === this.headOf(state)));
  }

  barOf(value, head) {
    const [button, number, bar, name] = ["button", "small", "i", "b"].map((tag) => document.createElement(tag));
    number.textContent = value.toFixed(2).replace(/^0/, ""); // there is little room beside 16 heads
    bar.style.height = `${Math.round(46 * value)}px`;
    name.textContent = head;
    button.append(number, bar, name);
    button.title = `head ${head}: ${value.toFixed(2)}`;
    button.setAttribute("aria-label", `Head ${head}: entropy ${value.toFixed(2)}`);
    button.addEventListener("click", () => this.root.dispatchEvent(new CustomEvent("choose", { bubbles: true, detail: { head: String(head) } })));
    return button;
  }

  async showEvery(state, token, turn) {
    this.part(".every").hidden = !state.every;
    if (!state.every) return;
    const begin = performance.now();
    const kind = state.kind === "read_by" ? "read_by" : "reads";
    const given = await askValues({ ...this.asked({ ...state, kind }, token), head: "every" });
    this.took = performance.now() - begin;
    if (turn !== this.turn) return;
    const heads = given.values.length / given.layers.length;
    const [height, width] = given.grid;
    this.grid.width = heads * (width + 1) - 1;
    this.grid.height = given.layers.length * (height + 1) - 1;
    this.every = { heads, layers: given.layers };
    this.grid.style.maxWidth = `${Math.max(heads * 56, 168)}px`; // few heads would make a tower
    const context = this.grid.getContext("2d");
    given.values.forEach((values, place) => {
      const corner = [(place % heads) * (width + 1), Math.floor(place / heads) * (height + 1)];
      context.putImageData(coloured(values.subarray(given.prefix), width, height, false), ...corner);
    });
    const row = given.layers.indexOf(this.layerOf(state));
    const chosen = HEADS.includes(state.head) ? [...Array(heads).keys()] : [Number(this.headOf(state))];
    context.strokeStyle = "#fff";
    for (const head of chosen) context.strokeRect(head * (width + 1) - 0.5, row * (height + 1) - 0.5, width + 1, height + 1);
  }

  // The token "row,column" below a pointer on the picture.
  tokenAt(event, state) {
    const [height, width] = this.about(state).grid;
    const box = this.canvas.getBoundingClientRect();
    const { step, cell } = this.layout;
    const along = (place, axis, size) => {
      const inside = ((place * this.canvas.width) / box.width) % step[axis]; // in pixels of the canvas
      return Math.min(Math.max(Math.floor((inside / cell[axis]) * size), 0), size - 1);
    };
    return `${along(event.clientY - box.top, 1, height)},${along(event.clientX - box.left, 0, width)}`;
  }

  // The layer and head below a pointer on the small pictures.
  chosenAt(event) {
    const box = this.grid.getBoundingClientRect();
    const { heads, layers } = this.every;
    const head = Math.min(Math.floor(((event.clientX - box.left) / box.width) * heads), heads - 1);
    const row = Math.min(Math.floor(((event.clientY - box.top) / box.height) * layers.length), layers.length - 1);
    return { head: String(head), layer: String(layers[row]) };
  }
}

const at = (token, width) => {
  const [row, column] = token.split(",").map(Number);
  return row * width + column;
};

function inGrey(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels;
  for (let i = 0; i < data.length; i += 4) data[i] = data[i + 1] = data[i + 2] = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function caption(context, words, [x, y]) {
  context.font = `${Math.round(12 * Math.min(devicePixelRatio, 2))}px sans-serif`;
  const size = Math.round(16 * Math.min(devicePixelRatio, 2));
  context.fillStyle = "#000b";
  context.fillRect(x, y, context.measureText(words).width + 8, size);
  context.fillStyle = "#fff";
  context.fillText(words, x + 4, y + size * 0.75);
}
