// The page of clicks: its controls, and what they do to the session of this tab.

import * as server from "./server.js";
import { Session } from "./session.js";
import { COLOURS, css, View } from "./view.js";
import { Zoom } from "./zoom.js";

const find = (id) => document.getElementById(id);
const OPTIONS = ["key_adaptation", "key_prior_precision", "adapt_in", "value_propagation", "value_prior_precision"];
const SWITCHES = { key_adaptation: 1, value_propagation: 5 }; // iterations of what is switched on

const STEP = 1.5; // times that a key or a button enlarges

const zoom = new Zoom(zoomed);
const views = Object.fromEntries(["before", "after"].map((id) => [id, new View(find(id).querySelector("canvas"), zoom)]));
let facts;
let session;
let tool = "object";
let asking = null; // what stops the answer that is waited for
let cursorTimer = 0;

const say = (text) => {
  clearTimeout(cursorTimer); // what it would say is older
  find("status").textContent = text;
};
const fail = (error) => { if (error.name !== "AbortError") find("error").textContent = error.message; };
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const milliseconds = (time) => `${Math.max(1, Math.round(time))} ms`;

// Runs what a control does; what goes wrong is said on the page.
const doing = (action) => async (...given) => {
  find("error").textContent = "";
  try {
    await action(...given);
  } catch (error) {
    fail(error);
  }
};

// ---- pictures

async function openPicture(id) {
  stop();
  session.current = id;
  session.save();
  refresh();
  find("empty").hidden = id !== null;
  if (id === null) return Object.values(views).forEach((view) => view.show(null));
  for (const view of Object.values(views)) view.leave();
  say("Opening the picture…");
  const picture = await server.picture(id).catch((error) => {
    if (session.current === id) Object.values(views).forEach((view) => view.show(null));
    if (error.final) session.gone.add(id);
    throw error;
  });
  session.gone.delete(id);
  if (session.current !== id) return;
  for (const view of Object.values(views)) view.show(picture);
  zoomed();
  const { name } = session.pictures.find((one) => one.id === id);
  views.after.canvas.setAttribute("aria-label", `${name}, ${picture.width} by ${picture.height} pixels`);
  say(`${name}, ${picture.width} × ${picture.height} pixels.`);
  await rest();
}

async function turn(by) {
  const place = session.pictures.findIndex(({ id }) => id === session.current) + by;
  if (place >= 0 && place < session.pictures.length) await openPicture(session.pictures[place].id);
}

async function take(files) {
  let last = null;
  const refused = [];
  for (const file of files) {
    try {
      if (file.size > facts.limits.upload) throw new Error(`${file.name} has more than ${plural(facts.limits.upload, "byte")}`);
      if (session.has(file.name)) throw new Error(`A picture with the name ${file.name} is open already`);
      const picture = await server.upload(file);
      if (session.has(picture.name)) throw new Error(`A picture with the name ${picture.name} is open already`); // it was cut
      session.add(picture);
      last = picture;
    } catch (error) {
      refused.push(error.message);
    }
  }
  if (last) await openPicture(last.id);
  if (refused.length) throw new Error(refused.join("; "));
}

// ---- answers

// Whether the server has to be asked about an object: also for the mask before, of the one that is worked on.
function lacks(object) {
  const before = find("compare").checked && object === session.object;
  return object.waits || (before && !object.empty && !object.answer.before);
}

// Asks about the objects of this picture whose answers were cut short by what was done next.
// Whoever asks calls this after an answer, so that there is nothing to do while one is waited for.
async function rest() {
  for (const object of session.list) if (lacks(object) && !asking) await answer(object);
}

function stop() {
  asking?.abort();
  asking = null;
}

async function answer(object, click = null) {
  stop();
  if (object.empty) {
    [object.answer, object.stale] = [null, false];
    refresh();
    say(told(object));
    return;
  }
  asking = new AbortController();
  const { signal } = asking;
  const [id, start] = [session.current, performance.now()];
  say("Asking…");
  let got;
  try {
    got = await server.answer({ ...object.entry(id), compare: find("compare").checked }, signal);
  } catch (error) {
    if (error.name !== "AbortError") say("");
    throw error;
  } finally {
    if (asking?.signal === signal) asking = null;
  }
  signal.throwIfAborted();
  [object.answer, object.stale] = [got, false];
  if (click) Object.assign(click, { model: 1000 * got.after.seconds, iou: got.after.truth?.iou });
  refresh();
  if (click) click.time = performance.now() - start;
  session.save();
  list();
  say(told(object, performance.now() - start));
}

// What is known of an object; the time is that of an answer which has just come.
function told(object, time = null) {
  const name = `Object ${session.list.indexOf(object) + 1}`;
  if (object.empty) return `${name}: nothing is marked.`;
  const parts = `${plural(object.now.clicks.length, "click")}${object.now.box ? ", a box" : ""}${object.now.mask ? ", from a mask" : ""}`;
  if (!object.answer) return `${name}: ${parts}.`;
  const { pixels, seconds, truth } = object.answer.after;
  const quality = truth ? ` IoU ${truth.iou.toFixed(3)} with ${truth.name}.` : "";
  const took = time === null ? "" : ` ${milliseconds(time)} (model ${milliseconds(1000 * seconds)}).`;
  const none = pixels ? "" : " Nothing is above the threshold: lower it, or click again.";
  return `${name}: ${parts}; ${plural(pixels, "pixel")}.${none}${quality}${took}`;
}

// Goes to another object of this picture.
async function turnTo(go) {
  go();
  session.save();
  views.after.drop();
  refresh();
  say(told(session.object));
  await rest();
}

async function changed(object, click = null) {
  if (!session.save()) find("error").textContent = "The browser keeps no more than this: export before you leave the page.";
  object.answer &&= object.empty ? null : object.answer;
  object.stale = true;
  refresh();
  await answer(object, click);
  await rest();
}

async function clicked([y, x], positive) {
  const { object } = session;
  if (object.now.clicks.length >= facts.limits.clicks) throw new Error(`An object takes at most ${facts.limits.clicks} clicks.`);
  const click = { y, x, positive };
  object.change({ clicks: [...object.now.clicks, click] });
  await changed(object, click);
}

async function boxed(box) {
  if (!facts.box) throw new Error("This model takes no box.");
  session.object.change({ box });
  await changed(session.object);
}

async function step(name) {
  const { object } = session;
  if (object[name]() === false) return;
  await changed(object);
}

async function startFrom(file) {
  const { object, current } = session;
  const { mask, box } = await server.startMask(current, file);
  object.change({ clicks: [], mask, box: facts.box ? box : null });
  await changed(object);
}

// ---- settings

const value = (name) => session.object.setting[name] ?? (name === "adapt_in" ? "both" : facts.built[name] ?? 0);

async function set(name, given) {
  const { object } = session;
  object.setting = { ...object.setting, [name]: given };
  session.setting = object.setting; // of the next object, too
  await changed(object);
}

async function toggle(name) {
  if (!find(name).disabled) await set(name, value(name) ? 0 : SWITCHES[name]);
}

async function setThreshold(given) {
  session.object.threshold = session.threshold = Math.min(Math.max(Math.round(100 * given) / 100, 0.01), 0.99);
  await changed(session.object);
}

async function compare() {
  find("before").hidden = !find("compare").checked;
  for (const view of Object.values(views)) view.fit();
  await rest();
}

async function download(name) {
  const entries = session.entries();
  if (!entries.length) throw new Error("Nothing is marked yet.");
  say(`Writing ${name}…`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await server.exported(name, entries));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  const left = session.gone.size ? ` ${plural(session.gone.size, "picture")} that could not be opened left out.` : "";
  say(`${plural(entries.length, "object")} written to ${name}.${left}`);
  const how = "python -m attention_zoo predict --ckpt_path RUN --data.predict_dir FOLDER --data.predict_clicks clicks.json makes the same masks.";
  find("exported").textContent = name === "clicks.json" ? how : "";
}

// ---- what is shown

function option(text, value) {
  const made = document.createElement("option");
  made.textContent = text;
  made.value = value;
  return made;
}

// How many objects a picture has, behind its name.
function marked(id) {
  const count = session.count(id);
  return count ? ` · ${plural(count, "object")}` : "";
}

function refresh() {
  const { object } = session;
  find("pictures").replaceChildren(...session.pictures.map(({ id, name }) => option(name + marked(id), id)));
  find("pictures").value = session.current ?? "";
  const place = session.pictures.findIndex(({ id }) => id === session.current);
  find("previous").disabled = place <= 0;
  find("next").disabled = place < 0 || place === session.pictures.length - 1;
  for (const id of ["object", "background", "box", "new", "remove", "mask", "larger"]) find(id).disabled = !object;
  find("box").disabled ||= !facts.box;
  find("undo").disabled = !object?.past.length;
  find("redo").disabled = !object?.future.length;
  find("clear").disabled = !object || object.empty;
  for (const name of ["object", "background", "box"]) find(name).setAttribute("aria-pressed", tool === name);
  views.after.canvas.dataset.tool = tool;
  settings(object);
  list();
  for (const [key, view] of Object.entries(views)) view.draw({ objects: session.list, place: session.place, key });
  for (const [key, name] of Object.entries({ before: "Before: nothing adapts", after: "After: as set on this page" })) {
    const truth = object?.answer?.[key]?.truth;
    find(key).querySelector("figcaption").textContent = truth ? `${name} · IoU ${truth.iou.toFixed(3)}` : name;
  }
}

function settings(object) {
  const can = { key: facts.adapts.length > 0, value: facts.propagates };
  for (const name of OPTIONS) {
    const field = find(name);
    field.disabled = !object || !can[name.startsWith("value") ? "value" : "key"];
    if (object && document.activeElement !== field) field.value = value(name);
  }
  for (const place of find("adapt_in").options) {
    place.disabled = place.value !== "both" && !facts.adapts.includes(place.value);
  }
  const named = facts.settings.findIndex(({ setting }) => object && OPTIONS.every((name) => setting[name] === object.setting[name]));
  find("setting").value = named < 0 ? "own" : named;
  find("setting").disabled = find("threshold").disabled = !object;
  find("threshold").value = object?.threshold ?? facts.threshold;
  find("threshold-value").textContent = (object?.threshold ?? facts.threshold).toFixed(2);
}

function list() {
  find("objects").replaceChildren(...session.list.map((object, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", place === session.place);
    button.append(swatch(COLOURS[place % COLOURS.length]), `Object ${place + 1}`);
    button.addEventListener("click", doing(() => turnTo(() => { session.place = place; })));
    return button;
  }));
  find("clicks").replaceChildren(...(session.object?.now.clicks ?? []).map(({ y, x, positive, time, model, iou }) => {
    const item = document.createElement("li");
    const took = time === undefined ? "" : ` · ${milliseconds(time)} (model ${milliseconds(model)})`;
    const quality = iou === undefined || iou === null ? "" : ` · IoU ${iou.toFixed(3)}`;
    item.textContent = `${positive ? "+ object" : "− background"} at row ${y}, column ${x}${took}${quality}`;
    return item;
  }));
  find("clicks").scrollTop = find("clicks").scrollHeight; // the newest is what one looks for
}

function swatch(colour) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("class", "swatch");
  made.setAttribute("viewBox", "0 0 14 14");
  made.setAttribute("aria-hidden", "true");
  const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, given] of Object.entries({ cx: 7, cy: 7, r: 6, fill: css(colour), stroke: "#000" })) circle.setAttribute(name, given);
  made.append(circle);
  return made;
}

// ---- controls and keys

function choose(name) {
  if (find(name).disabled) return;
  tool = name;
  views.after.drop();
  refresh();
}

function zoomed() {
  for (const view of Object.values(views)) view.draw();
  find("whole").textContent = `${Math.round(100 * zoom.times)} %`;
  find("whole").disabled = find("smaller").disabled = zoom.times === 1;
  views.after.canvas.dataset.zoomed = zoom.times > 1 ? "yes" : "no";
}

function whole() {
  zoom.whole();
  zoomed();
}

// With the space bar held down, dragging moves what is seen.
function hand(event) {
  const canvas = views.after.canvas;
  if (event.key !== " " || (event.type === "keydown" && ![canvas, document.body].includes(event.target))) return;
  if (event.type === "keydown") event.preventDefault(); // no scrolling of the page
  canvas.dataset.hand = event.type === "keydown" ? "yes" : "no";
}

const press = (id) => () => { if (!find(id).disabled) find(id).click(); };
const KEYS = {
  o: () => choose("object"), b: () => choose("background"), x: () => choose("box"),
  z: press("undo"), y: press("redo"), c: press("clear"), n: press("new"), Delete: press("remove"), m: press("mask"),
  ",": press("previous"), ".": press("next"), u: press("open"),
  k: doing(() => toggle("key_adaptation")), v: doing(() => toggle("value_propagation")), s: () => find("compare").click(),
  "[": doing(() => session.object && setThreshold(session.object.threshold - 0.05)),
  "]": doing(() => session.object && setThreshold(session.object.threshold + 0.05)),
  1: doing(() => download("masks.zip")), 2: doing(() => download("coco.json")), 3: doing(() => download("clicks.json")),
  "+": press("larger"), "=": press("larger"), "-": press("smaller"), 0: press("whole"), h: () => find("hide").click(),
  "?": press("help"),
};

function keyed(event) {
  const typing = event.target.matches('select, input:not([type="range"]):not([type="checkbox"])');
  if (typing || event.altKey || find("keys").open) return;
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (control && !["z", "y"].includes(key)) return;
  const action = control && event.shiftKey && key === "z" ? KEYS.y : KEYS[key];
  if (!action) return;
  event.preventDefault();
  action();
}

function listen() {
  for (const name of ["object", "background", "box"]) find(name).addEventListener("click", () => choose(name));
  for (const name of ["undo", "redo", "clear"]) find(name).addEventListener("click", doing(() => step(name)));
  find("previous").addEventListener("click", doing(() => turn(-1)));
  find("next").addEventListener("click", doing(() => turn(1)));
  find("pictures").addEventListener("change", doing(() => openPicture(find("pictures").value)));
  find("new").addEventListener("click", doing(() => turnTo(() => session.next())));
  find("remove").addEventListener("click", doing(async () => {
    stop();
    session.remove();
    session.save();
    refresh();
    say("Object removed.");
    await rest();
  }));
  for (const [button, input, action] of [["open", "file", take], ["mask", "mask-file", ([file]) => startFrom(file)]]) {
    find(button).addEventListener("click", () => find(input).click());
    find(input).addEventListener("change", doing(async () => {
      const files = [...find(input).files];
      find(input).value = "";
      if (files.length) await action(files);
    }));
  }
  for (const name of OPTIONS) {
    find(name).addEventListener("change", doing(async () => {
      const field = find(name);
      if (!field.checkValidity() || field.value === "") throw new Error(`${field.labels[0].innerText}: ${field.validationMessage || "give a number"}`);
      await set(name, name === "adapt_in" ? field.value : Number(field.value));
    }));
  }
  find("setting").addEventListener("change", doing(async () => {
    if (find("setting").value === "own") return;
    session.object.setting = session.setting = facts.settings[find("setting").value].setting;
    await changed(session.object);
  }));
  find("threshold").addEventListener("change", doing(() => setThreshold(Number(find("threshold").value))));
  find("threshold").addEventListener("input", () => { find("threshold-value").textContent = Number(find("threshold").value).toFixed(2); });
  find("compare").addEventListener("change", doing(compare));
  find("hide").addEventListener("change", () => {
    for (const view of Object.values(views)) view.bare = find("hide").checked;
    refresh();
  });
  find("larger").addEventListener("click", () => views.after.enlarge(STEP));
  find("smaller").addEventListener("click", () => views.after.enlarge(1 / STEP));
  find("whole").addEventListener("click", whole);
  for (const kind of ["keydown", "keyup"]) document.addEventListener(kind, hand);
  for (const button of document.querySelectorAll("[data-export]")) button.addEventListener("click", doing(() => download(button.dataset.export)));
  find("help").addEventListener("click", () => find("keys").showModal());
  document.addEventListener("keydown", keyed);
  const moved = ([y, x]) => { clearTimeout(cursorTimer); cursorTimer = setTimeout(() => say(`Row ${y}, column ${x}.`), 250); };
  const corner = ([y, x]) => say(`One corner of the box at row ${y}, column ${x}: now the opposite one.`);
  const early = () => say("The picture is still opening: click again once it is here.");
  views.after.listen({ tool: () => tool, boxes: facts.box, click: doing(clicked), box: doing(boxed), moved, corner, early });
  new ResizeObserver(() => Object.values(views).forEach((view) => view.fit())).observe(find("views"));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
    });
  }
  document.addEventListener("drop", doing((event) => take([...event.dataTransfer.files])));
}

await doing(async () => {
  facts = await server.facts();
  session = new Session(facts);
  const encoder = facts.encoder_once ? "the encoder runs once a picture" : "clicks enter the encoder, which runs once a click";
  find("model").textContent = `${facts.title}: ${facts.model}; ${encoder}.`;
  find("setting").replaceChildren(...facts.settings.map(({ name }, place) => option(name, place)), option("of your own", "own"));
  const lacking = [[facts.adapts.length, "has no probabilistic attention whose keys could adapt"], [facts.propagates, "has no head that propagates values"]];
  const cannot = lacking.filter(([has]) => !has).map(([, words]) => words);
  [find("cannot").textContent, find("cannot").hidden] = [`This model ${cannot.join(" and ")}.`, !cannot.length];
  if (!facts.box) find("box").title = "This model takes no box";
  listen();
  await openPicture(session.current);
})();
