// What a person did in this tab: objects on pictures, each with its steps to undo. It outlives a reload of the page.

const EMPTY = { clicks: [], box: null, mask: null };

export class MarkedObject {
  constructor(setting, threshold) {
    this.now = EMPTY;
    this.past = [];
    this.future = [];
    this.setting = setting;
    this.threshold = threshold;
    this.answer = null; // of the server
    this.stale = false; // whether that answer is to something earlier
  }

  get empty() {
    return !this.now.clicks.length && !this.now.box && !this.now.mask;
  }

  // Whether the server has still to be asked about what is now.
  get waits() {
    return !this.empty && (!this.answer || this.stale);
  }

  change(next) {
    this.past.push(this.now);
    this.future = [];
    this.now = { ...this.now, ...next };
  }

  undo() {
    if (!this.past.length) return false;
    this.future.push(this.now);
    this.now = this.past.pop();
    return true;
  }

  redo() {
    if (!this.future.length) return false;
    this.past.push(this.now);
    this.now = this.future.pop();
    return true;
  }

  clear() {
    if (!this.empty) this.change(EMPTY);
  }

  // The entry of a file of clicks, with the id of the picture as its name.
  entry(id) {
    const clicks = this.now.clicks.map(({ y, x, positive }) => ({ y, x, positive }));
    const entry = { image: id, clicks, setting: this.setting, threshold: this.threshold };
    if (this.now.box) entry.box = this.now.box;
    if (this.now.mask) entry.mask = this.now.mask;
    return entry;
  }
}

export class Session {
  constructor(facts) {
    this.title = facts.title;
    this.pictures = [...facts.pictures];
    this.setting = facts.settings[0].setting;
    this.threshold = facts.threshold;
    this.objects = new Map(); // of the id of a picture
    this.places = new Map(); // of the object that is worked on, by the id of its picture
    this.gone = new Set(); // ids of pictures that the server no longer has
    this.current = this.pictures[0]?.id ?? null;
    this.restore();
  }

  get list() {
    if (this.current === null) return [];
    if (!this.objects.has(this.current)) this.objects.set(this.current, [this.fresh()]);
    return this.objects.get(this.current);
  }

  get place() {
    return Math.min(this.places.get(this.current) ?? 0, this.list.length - 1);
  }

  set place(place) {
    this.places.set(this.current, place);
  }

  get object() {
    return this.list[this.place];
  }

  fresh() {
    return new MarkedObject(this.setting, this.threshold);
  }

  // The next object: one without clicks where there is one, else a new one.
  next() {
    const free = this.list.findIndex((object) => object.empty);
    if (free < 0) this.list.push(this.fresh());
    this.place = free < 0 ? this.list.length - 1 : free;
  }

  remove() {
    this.list.splice(this.place, 1);
    if (!this.list.length) this.list.push(this.fresh());
    this.place = Math.max(this.place, 0);
  }

  has(name) {
    return this.pictures.some((picture) => picture.name === name && !this.gone.has(picture.id));
  }

  // Adds a picture; one that the server had lost, and has again, keeps its objects.
  add(picture) {
    const lost = this.pictures.findIndex(({ id, name }) => name === picture.name && this.gone.has(id));
    if (lost < 0) {
      this.pictures.push(picture);
      return;
    }
    const { id } = this.pictures[lost];
    this.pictures[lost] = picture;
    this.gone.delete(id);
    this.objects.set(picture.id, this.objects.get(id) ?? [this.fresh()]);
    this.objects.delete(id);
  }

  // How many objects of a picture have something on them.
  count(id) {
    return (this.objects.get(id) ?? []).filter((object) => !object.empty).length;
  }

  // All objects of all pictures that the server has, as entries of a file of clicks.
  entries() {
    return this.pictures.filter(({ id }) => !this.gone.has(id)).flatMap(({ id }) =>
      (this.objects.get(id) ?? []).filter((object) => !object.empty).map((object) => object.entry(id)));
  }

  save() {
    const objects = [...this.objects].map(([id, list]) => [id, list.map(({ answer, stale, ...kept }) => kept)]);
    const { title, pictures, current } = this;
    try {
      sessionStorage.setItem("clicks", JSON.stringify({ title, pictures, current, objects }));
      return true;
    } catch {
      return false; // more than the browser keeps
    }
  }

  restore() {
    let kept = null;
    try {
      kept = JSON.parse(sessionStorage.getItem("clicks"));
    } catch { /* not what this page wrote */ }
    if (kept?.title !== this.title) return;
    // ids of files are places in the folder, which may have changed since; names say what is meant
    const known = new Map(this.pictures.map(({ id, name }) => [name, id]));
    const ids = new Map();
    for (const { id, name } of kept.pictures) {
      if (/^\d+$/.test(id)) ids.set(id, known.get(name));
      else {
        this.pictures.push({ id, name });
        ids.set(id, id);
      }
    }
    for (const [id, list] of kept.objects) {
      if (ids.get(id) !== undefined) {
        this.objects.set(ids.get(id), list.map((one) => Object.assign(this.fresh(), one)));
      }
    }
    this.current = ids.get(kept.current) ?? this.current;
  }
}
