// Which part of a picture is seen: how many times it is enlarged, and what is in the top left corner.

const MOST = 32; // times

export class Zoom {
  constructor(changed) {
    this.changed = changed;
    this.whole();
  }

  // The whole picture.
  whole() {
    [this.times, this.y, this.x] = [1, 0, 0]; // y and x in pixels of the picture
  }

  // Enlarges by a factor; what is at these shares of the height and the width that are seen stays where it is.
  by(factor, [down, right], { height, width }) {
    const times = Math.min(Math.max(this.times * factor, 1), MOST);
    const gone = 1 / this.times - 1 / times; // of what was seen, as a share of the picture
    this.times = times;
    this.move(down * height * gone, right * width * gone, { height, width });
  }

  // Moves what is seen by pixels of the picture, as far as there is something to see.
  move(down, right, { height, width }) {
    const within = (place, side) => Math.min(Math.max(place, 0), side - side / this.times);
    [this.y, this.x] = [within(this.y + down, height), within(this.x + right, width)];
    this.changed();
  }

  // Moves as little as brings a pixel into sight.
  reveal([y, x], { height, width }) {
    const missing = (place, from, seen) => Math.min(place - from, 0) + Math.max(place + 1 - from - seen, 0);
    this.move(missing(y, this.y, height / this.times), missing(x, this.x, width / this.times), { height, width });
  }
}
