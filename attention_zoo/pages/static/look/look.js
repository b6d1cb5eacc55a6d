// The attention page: controls change the state, the state is the address, and every model draws it.

import { HEADS, Panel } from "./panel.js";
import { askJson, forgetRefusals } from "./server.js";
import { fromAddress, prior, shown, toAddress } from "./state.js";

const byId = (id) => document.getElementById(id);
const { state, ignored } = fromAddress();
const panels = [];
let facts = null;
let loaded = ""; // what the models were shown last
let hovered = null, busy = false;
let over = null; // the token that the pointer is over, and its grid

async function start() {
  try {
    facts = await askJson("facts", {});
  } catch (error) {
    return complain(error.message);
  }
  [byId("note").textContent, byId("note").hidden] = [facts.note, !facts.note];
  fill(byId("image"), facts.images);
  fill(byId("corruption"), facts.corruptions, (name) => name.replaceAll("_", " "));
  fill(byId("mode"), facts.modes);
  state.image ||= facts.images[0];
  facts.models.forEach((each, place) => {
    const panel = new Panel(place, each);
    panels.push(panel);
    byId("models").append(panel.root);
    listen(panel);
  });
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return; // a picture is as wide as there is room, and makes its height itself
    width = contentRect.width;
    if (loaded) (over ? draw(over.token, true, over.from) : draw());
  }).observe(byId("models"));
  await refresh();
  if (ignored.length && loaded) complain(`Left out of the address, since no control can say it: ${ignored.join(", ")}`);
}

function fill(select, names, words = (name) => name) {
  for (const name of names) select.add(new Option(words(name), name));
}

function complain(words) {
  [byId("message").textContent, byId("message").hidden] = [words, !words];
}

// Show the state: load what the models see if it is something else, then draw.
let newest = 0;
async function refresh() {
  const mine = ++newest;
  over = null;
  const wanted = JSON.stringify([shown(state), prior(state)]);
  document.body.dataset.ready = "no";
  if (wanted !== loaded) {
    complain("");
    const ended = await Promise.allSettled(panels.map((panel) => panel.load(state)));
    if (mine !== newest) return;
    const failed = ended.find((each) => each.status === "rejected");
    if (failed) {
      loaded = "";
      controls();
      document.body.dataset.ready = "yes";
      return complain(failed.reason.message);
    }
    loaded = wanted;
  }
  controls();
  toAddress(state);
  await draw();
  if (mine !== newest) return;
  for (const panel of panels) await panel.showEntropies(state);
  if (mine === newest) document.body.dataset.ready = "yes";
}

const grid = () => panels[0].about(state).grid;

// The pinned token; one that is not on the grid is brought onto it.
function pinned() {
  const [height, width] = grid();
  if (state.token === "cls") return "cls";
  if (!state.token) return `${Math.floor(height / 2)},${Math.floor(width / 2)}`;
  const [row, column] = state.token.split(",").map(Number);
  return `${Math.min(row, height - 1)},${Math.min(column, width - 1)}`;
}

async function draw(token = pinned(), passing = false, from = grid()) {
  await Promise.all(panels.map((panel) => panel.show(state, panel.placed(token, from, state), passing)));
  if (!passing) byId("spoken").textContent = panels.map((panel) => panel.words && `${panel.facts.name}: ${panel.words}`).filter(Boolean).join(". ");
}

// Put the state into the controls.
function controls() {
  const known = [...byId("image").options].some((option) => option.value === state.image);
  if (!known) byId("image").add(new Option(state.image, state.image));
  for (const name of ["image", "kind", "corruption", "severity", "prior", "alpha", "mode", "strength"]) byId(name).value = state[name];
  byId("strength-value").textContent = `${byId("strength").value} %`;
  byId("severity-value").textContent = state.severity;
  byId("severity-row").hidden = !state.corruption;
  byId("every").setAttribute("aria-pressed", String(Boolean(state.every)));
  byId("cls").setAttribute("aria-pressed", String(state.token === "cls"));
  if (panels.some((panel) => !panel.view)) return;
  const most = (of) => Math.max(...panels.map(of));
  const depth = most((panel) => panel.view.layers.length);
  byId("layer").max = depth - 1;
  const layer = state.layer === "last" ? depth - 1 : Math.min(Number(state.layer), depth - 1);
  byId("layer").value = layer;
  byId("layer-value").textContent = `${layer} of 0 to ${depth - 1}`;
  const heads = most((panel) => panel.about(state).heads);
  if (byId("head").options.length !== heads + 2) {
    byId("head").replaceChildren(new Option("mean of all", "mean"), new Option("each", "each"));
    for (let head = 0; head < heads; head++) byId("head").add(new Option(head, head));
  }
  byId("head").value = HEADS.includes(state.head) ? state.head : Math.min(Number(state.head), heads - 1);
  byId("head").disabled = !["reads", "read_by", "clusters"].includes(state.kind);
  const steps = most((panel) => panel.about(state).steps);
  byId("step-row").hidden = !steps || !["reads", "read_by"].includes(state.kind);
  byId("step").max = steps;
  byId("step").value = state.step === "" ? steps : state.step;
  byId("step-value").textContent = state.step === "" || Number(state.step) >= steps ? `${steps}, the last` : state.step;
  byId("cls").disabled = !panels.some((panel) => panel.about(state).class_token);
  const has = { similarity: (panel) => panel.view.prior, atoms: (panel) => panel.about(state).atoms, clusters: (panel) => panel.about(state).clusters };
  for (const option of byId("kind").options) option.disabled = option.value in has && !panels.some(has[option.value]);
  const twice = panels.find((panel) => panel.view.prior);
  byId("prior-row").hidden = !twice;
  if (twice && !byId("classes").children.length) byId("classes").append(...[facts.learned, ...twice.facts.classes].map((name) => new Option(name)));
  if (twice) byId("alpha").placeholder = `${twice.view.prior.alpha}, the model's own`;
}

function change(values) {
  Object.assign(state, values);
  return refresh();
}

// Hovering: the newest patch is asked for as soon as the one before has been drawn.
async function hover(token, from) {
  hovered = { token, from, since: performance.now() };
  over = token === null ? null : { token, from };
  if (busy) return;
  busy = true;
  while (hovered) {
    const each = hovered;
    hovered = null;
    await (each.token === null ? draw() : draw(each.token, true, each.from));
    if (each.token !== null) {
      const took = performance.now() - each.since;
      Object.assign(document.body.dataset, { latency: took.toFixed(1), drawn: each.token });
      byId("time").textContent = `Drawn ${took.toFixed(0)} ms after the pointer moved.`;
    }
  }
  busy = false;
}

function listen(panel) {
  let last = null;
  panel.canvas.addEventListener("pointermove", (event) => {
    if (!loaded || event.pointerType === "touch") return;
    const token = panel.tokenAt(event, state);
    if (token === last) return;
    last = token;
    panel.over = true;
    hover(token, panel.about(state).grid);
  });
  panel.canvas.addEventListener("pointerleave", () => {
    last = null;
    panel.over = false;
    if (loaded) hover(null);
  });
  panel.canvas.addEventListener("click", (event) => {
    if (!loaded) return;
    const token = panel.tokenAt(event, state);
    change({ token: panels[0].placed(token, panel.about(state).grid, state) });
  });
  panel.grid.addEventListener("click", (event) => change(panel.chosenAt(event)));
  panel.root.addEventListener("choose", (event) => change(event.detail));
}

for (const name of ["image", "kind", "head", "corruption", "prior", "alpha", "mode"]) byId(name).addEventListener("change", () => change({ [name]: byId(name).value.trim() }));
for (const name of ["layer", "step", "severity", "strength"]) byId(name).addEventListener("input", () => change({ [name]: byId(name).value }));
byId("cls").addEventListener("click", () => toggleClass());
byId("every").addEventListener("click", () => change({ every: state.every ? "" : "1" }));
byId("next").addEventListener("click", () => turnImage(1));
byId("previous").addEventListener("click", () => turnImage(-1));
byId("save").addEventListener("click", () => save());
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    byId("copy").textContent = "Copied";
  } catch {
    byId("copy").textContent = "Copy it from the address bar";
  }
  setTimeout(() => (byId("copy").textContent = "Copy address of this view"), 2000);
});

function toggleClass() {
  return change({ token: state.token === "cls" ? "" : "cls" });
}

function turnImage(by) {
  const select = byId("image");
  const count = select.options.length;
  return change({ image: select.options[(select.selectedIndex + by + count) % count].value });
}

function turn(name, by) {
  const options = [...byId(name).options].filter((option) => !option.disabled);
  const place = options.findIndex((option) => option.value === byId(name).value);
  return change({ [name]: options[(place + by + options.length) % options.length].value });
}

function move(down, right) {
  const [height, width] = grid();
  const from = pinned();
  if (from === "cls") return change({ token: `${Math.floor(height / 2)},${Math.floor(width / 2)}` });
  const [row, column] = from.split(",").map(Number);
  const within = (place, size) => Math.min(Math.max(place, 0), size - 1);
  return change({ token: `${within(row + down, height)},${within(column + right, width)}` });
}

function turnLayer(by) {
  const slider = byId("layer");
  return change({ layer: String(Math.min(Math.max(Number(slider.value) + by, 0), Number(slider.max))) });
}

const KEYS = {
  ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0), ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1),
  "[": () => turnLayer(-1), "]": () => turnLayer(1), ",": () => turn("head", -1), ".": () => turn("head", 1),
  k: () => turn("kind", 1), c: () => !byId("cls").disabled && toggleClass(), g: () => byId("every").click(),
  n: () => turnImage(1), p: () => turnImage(-1), s: () => save(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea");
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || typing || !loaded || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});

async function upload(file) {
  if (!file) return;
  if (file.size > facts.most_bytes) return complain(`${file.name} is larger than the ${facts.most_bytes >> 20} MiB that are taken.`);
  try {
    const { image } = await askJson("upload", { name: file.name }, { method: "POST", body: file });
    forgetRefusals();
    loaded = ""; // it may have been here before, and gone
    await change({ image });
  } catch (error) {
    complain(error.message);
  }
}

byId("file").addEventListener("change", (event) => {
  upload(event.target.files[0]);
  event.target.value = "";
});
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", over);
    if (name === "drop") upload(event.dataTransfer.files[0]);
  });
}

// Save what the models show side by side, with what it is of and its address below.
function save() {
  if (!loaded) return;
  const style = getComputedStyle(document.body);
  const gap = 16, line = 22;
  const width = Math.max(...panels.map((panel) => panel.canvas.width));
  const height = Math.max(...panels.map((panel) => panel.canvas.height));
  const sheet = document.createElement("canvas");
  sheet.width = panels.length * (width + gap) + gap;
  sheet.height = height + 4 * line + 2 * gap;
  const context = sheet.getContext("2d");
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.font = "15px sans-serif";
  context.fillStyle = style.color;
  panels.forEach((panel, place) => {
    const left = gap + place * (width + gap);
    context.fillText(panel.part("h2").textContent, left, gap + 12, width);
    context.drawImage(panel.canvas, left, gap + line);
    context.fillText(panel.part(".said").textContent, left, gap + line + height + 18, width);
    const [least, most] = [".least", ".most"].map((end) => panel.part(end).textContent);
    const below = [least && `colours from ${least} to ${most}`, panel.view.prediction].filter(Boolean).join(" · ");
    context.fillText(below, left, gap + 2 * line + height + 18, width);
  });
  context.fillText(`${byId("kind").selectedOptions[0]?.text ?? state.kind} · ${location.href}`, gap, sheet.height - gap, sheet.width - 2 * gap);
  sheet.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `look-${state.image.replace(/[^\w-]+/g, "_")}-layer${byId("layer").value}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

start();
