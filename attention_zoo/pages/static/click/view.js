// A picture with masks, clicks and boxes on it, and where on it a person points.

import { contour, decode, tinted } from "./masks.js";

// Okabe and Ito's colours, which the colour-blind can tell apart too (M. Okabe, K. Ito, 2008).
export const COLOURS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [213, 94, 0], [0, 114, 178]];
const POSITIVE = "#0072b2";
const NEGATIVE = "#d55e00";
const OPACITY = 0.5;
const LARGEST = 12; // times that a small picture is enlarged
const DRAG = 6; // pixels of the screen from which on a pointer drags
const NOTCH = 1.0015; // times that a picture grows for each pixel of a wheel

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

export class View {
  constructor(canvas, zoom) {
    this.canvas = canvas;
    this.zoom = zoom; // of all views of a picture
    this.context = canvas.getContext("2d");
    this.picture = null;
    this.scene = { objects: [], place: 0, key: "after" };
    this.cursor = null; // of the keyboard, in pixels of the picture
    this.corner = null; // the first one of a box
    this.dragged = null; // the box in the making
    this.pointed = null; // where a pointer is: shares of the height and the width that are seen
    this.bare = false; // whether masks are hidden
    this.drawn = new WeakMap(); // of an answer: what its mask looks like
  }

  show(picture) {
    this.picture = picture;
    this.zoom.whole();
    this.cursor = this.corner = this.dragged = null;
    this.canvas.hidden = picture === null; // it has another picture on it
    this.canvas.ariaBusy = "false";
    this.fit();
  }

  // Until another picture is here, nothing is clicked: it would be on that one. The canvas shows it.
  leave() {
    this.picture = null;
    this.canvas.ariaBusy = "true";
  }

  fit() {
    if (!this.picture) return;
    const { width, height } = this.picture;
    const room = this.canvas.parentElement.clientWidth;
    this.scale = Math.min(room / width, Math.max(0.72 * window.innerHeight, 240) / height, LARGEST);
    this.ratio = window.devicePixelRatio || 1;
    const size = [width, height].map((side) => Math.max(1, Math.round(side * this.scale)));
    [this.canvas.style.width, this.canvas.style.height] = size.map((side) => `${side}px`);
    [this.canvas.width, this.canvas.height] = size.map((side) => Math.round(side * this.ratio));
    this.draw();
  }

  draw(scene = this.scene) {
    this.scene = scene;
    if (!this.picture) return;
    const { context, canvas, picture, zoom } = this;
    const [across, down] = [canvas.width / picture.width, canvas.height / picture.height].map((each) => each * zoom.times);
    context.setTransform(across, 0, 0, down, -zoom.x * across, -zoom.y * down);
    this.unit = this.ratio / across; // a pixel of the screen, in those of the picture
    context.imageSmoothingEnabled = this.scale * zoom.times < 3;
    context.drawImage(picture, 0, 0);
    const order = scene.objects.map((object, place) => ({ object, place }));
    order.sort((a, b) => (a.place === scene.place) - (b.place === scene.place)); // what is worked on lies on top
    if (!this.bare) for (const { object, place } of order) this.mask(object, place, place === scene.place);
    const object = scene.objects[scene.place];
    if (object) this.marks(object.now);
    if (this.dragged) this.box(this.dragged);
    if (this.cursor && document.activeElement === canvas) this.cross(this.cursor);
  }

  mask(object, place, active) {
    const answer = object.answer?.[this.scene.key] ?? (active && this.scene.key === "before" ? null : object.answer?.after);
    if (!answer) return;
    const colour = COLOURS[place % COLOURS.length];
    const looks = this.looks(answer, colour);
    const { context, unit } = this;
    context.imageSmoothingEnabled = false;
    context.drawImage(looks.tint, 0, 0);
    context.lineJoin = context.lineCap = "square";
    const strokes = active ? [["#000", 6], ["#fff", 4.5], [css(colour), 2.2]] : [["rgb(0 0 0 / 75%)", 3], [css(colour), 1.5]];
    for (const [style, width] of strokes) {
      context.strokeStyle = style;
      context.lineWidth = width * unit;
      context.stroke(looks.line);
    }
  }

  looks(answer, colour) {
    const kept = this.drawn.get(answer);
    if (kept && kept.colour === colour) return kept;
    const pixels = decode(answer.mask);
    const { size } = answer.mask;
    const looks = { colour, tint: tinted(pixels, size, colour, OPACITY), line: contour(pixels, size) };
    this.drawn.set(answer, looks);
    return looks;
  }

  // Clicks differ by shape and sign, not by colour alone.
  marks({ clicks, box }) {
    if (box) this.box(box);
    const { context, unit } = this;
    const radius = 8 * unit;
    for (const { y, x, positive } of clicks) {
      const [cx, cy] = [x + 0.5, y + 0.5];
      context.beginPath();
      if (positive) context.arc(cx, cy, radius, 0, 2 * Math.PI);
      else context.rect(cx - 0.9 * radius, cy - 0.9 * radius, 1.8 * radius, 1.8 * radius);
      context.fillStyle = positive ? POSITIVE : NEGATIVE;
      context.fill();
      context.strokeStyle = "#fff";
      context.lineWidth = 2 * unit;
      context.stroke();
      context.beginPath();
      context.moveTo(cx - radius / 2, cy);
      context.lineTo(cx + radius / 2, cy);
      if (positive) {
        context.moveTo(cx, cy - radius / 2);
        context.lineTo(cx, cy + radius / 2);
      }
      context.stroke();
    }
  }

  box([y, x, oppositeY, oppositeX]) {
    const { context, unit } = this;
    for (const [style, dash] of [["#000", []], ["#fff", [6 * unit, 4 * unit]]]) {
      context.strokeStyle = style;
      context.lineWidth = 2 * unit;
      context.setLineDash(dash);
      context.strokeRect(x, y, oppositeX - x, oppositeY - y);
    }
    context.setLineDash([]);
  }

  cross([y, x]) {
    const { context, unit } = this;
    for (const [style, width] of [["#000", 3], ["#fff", 1.2]]) {
      context.strokeStyle = style;
      context.lineWidth = width * unit;
      context.beginPath();
      for (const [dy, dx] of [[0, 1], [0, -1], [1, 0], [-1, 0]]) {
        context.moveTo(x + 0.5 + 4 * dx * unit, y + 0.5 + 4 * dy * unit);
        context.lineTo(x + 0.5 + 16 * dx * unit, y + 0.5 + 16 * dy * unit);
      }
      context.stroke();
    }
  }

  // Row and column of the pixel under a pointer, or of the nearest one.
  at(event) {
    const { picture: { height, width }, zoom } = this;
    const [down, right] = this.shares(event);
    const within = (place, side) => Math.min(Math.max(Math.floor(place), 0), side - 1);
    return [within(zoom.y + (down * height) / zoom.times, height), within(zoom.x + (right * width) / zoom.times, width)];
  }

  shares(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [(event.clientY - frame.top) / frame.height, (event.clientX - frame.left) / frame.width];
  }

  // Enlarges by a factor, around the pointer, else the cursor, else the middle.
  enlarge(factor) {
    if (!this.picture) return;
    const { picture, zoom, cursor } = this;
    const { height, width } = picture;
    const focus = cursor && document.activeElement === this.canvas
      ? [((cursor[0] + 0.5 - zoom.y) * zoom.times) / height, ((cursor[1] + 0.5 - zoom.x) * zoom.times) / width]
      : [0.5, 0.5];
    zoom.by(factor, this.pointed ?? focus, picture);
  }

  // Drops the box in the making.
  drop() {
    this.corner = this.dragged = null;
    this.draw();
  }

  // Tells `on` of clicks and boxes, and of clicks that are too early; `on.tool()` is what a left button does, `on.boxes`
  // whether boxes can be drawn.
  listen(on) {
    const { canvas } = this;
    let down = null;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 2) return;
      if (!this.picture) return on.early();
      const moves = event.button === 1 || canvas.dataset.hand === "yes";
      down = { picture: this.picture, event, last: event, place: this.at(event), moves, drags: false };
      if (event.button === 1) event.preventDefault(); // no scrolling of the page
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.pointed = event.pointerType === "mouse" ? this.shares(event) : null;
      if (!this.picture) return;
      if (down && down.picture !== this.picture) down = null; // what began on one picture does not end on another
      if (down) this.pull(down, event, on);
      const from = down?.drags ? down.place : this.corner;
      if (!from || down?.moves) return;
      this.dragged = [...from, ...this.at(event)];
      this.draw();
    });
    canvas.addEventListener("pointerleave", () => { this.pointed = null; });
    canvas.addEventListener("pointercancel", () => { down = null; this.drop(); });
    canvas.addEventListener("pointerup", () => {
      if (!down) return;
      const { picture, event, place, moves, drags } = down;
      down = null;
      if (picture !== this.picture || moves) return;
      if (drags) this.finish(this.dragged, on);
      else if (event.button === 2 || event.ctrlKey) on.click(place, false); // Control and click: the right one of a Mac
      else if (on.tool() !== "box") on.click(place, on.tool() === "object");
      else this.cornered(place, on);
    });
    canvas.addEventListener("wheel", (event) => {
      if (!this.picture || (event.deltaY > 0 && this.zoom.times === 1)) return; // the page scrolls
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 33); // else by lines
      this.zoom.by(NOTCH ** -pixels, this.shares(event), this.picture);
    });
    canvas.addEventListener("keydown", (event) => this.key(event, on));
    for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, () => this.draw());
  }

  // A pointer that is held down moves what is seen, or draws a box.
  pull(down, event, on) {
    const far = Math.hypot(event.clientX - down.event.clientX, event.clientY - down.event.clientY) > DRAG;
    const finger = event.pointerType !== "mouse" && on.tool() !== "box";
    down.moves ||= far && finger && this.zoom.times > 1;
    if (down.moves) {
      const unit = this.picture.width / this.zoom.times / this.canvas.clientWidth;
      this.zoom.move((down.last.clientY - event.clientY) * unit, (down.last.clientX - event.clientX) * unit, this.picture);
    } else {
      down.drags ||= far && !finger && down.event.button === 0 && on.boxes;
    }
    down.last = event;
  }

  key(event, on) {
    const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!this.picture && event.key === "Enter") return on.early();
    if (!this.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!(event.key in arrows || event.key === "Enter" || (event.key === "Escape" && this.corner))) return;
    const { height, width } = this.picture;
    this.cursor ??= [Math.floor(height / 2), Math.floor(width / 2)];
    if (event.key in arrows) {
      const step = event.shiftKey ? 10 : 1;
      const move = (place, by, side) => Math.min(Math.max(place + by * step, 0), side - 1);
      const [dy, dx] = arrows[event.key];
      this.cursor = [move(this.cursor[0], dy, height), move(this.cursor[1], dx, width)];
      if (this.corner) this.dragged = [...this.corner, ...this.cursor];
      this.zoom.reveal(this.cursor, this.picture);
      on.moved(this.cursor);
    } else if (event.key === "Enter") {
      if (on.tool() === "box" && !event.shiftKey) this.cornered(this.cursor, on);
      else on.click(this.cursor, !event.shiftKey && on.tool() === "object");
    } else {
      this.drop();
    }
    event.preventDefault();
    this.draw();
  }

  // One corner of a box, or the opposite one.
  cornered(place, on) {
    if (this.corner) return this.finish([...this.corner, ...place], on);
    this.corner = place;
    on.corner(place);
  }

  finish(box, on) {
    this.drop();
    on.box(box);
  }
}
