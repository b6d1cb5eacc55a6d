// Masks: from the run lengths that the server sends (COCO's, column by column) to what can be drawn.

// The pixels of a mask, row by row: 1 on the object.
export function decode({ size: [height, width], counts }) {
  const pixels = new Uint8Array(height * width);
  let place = 0;
  counts.forEach((length, run) => {
    if (run % 2) {
      for (let column = place; column < place + length; column++) {
        pixels[(column % height) * width + Math.floor(column / height)] = 1;
      }
    }
    place += length;
  });
  return pixels;
}

// A canvas of the mask's size, in a colour [red, green, blue], see-through where no object is.
export function tinted(pixels, [height, width], colour, opacity) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer); // a pixel at a time: large pictures have millions
  const [word] = new Uint32Array(new Uint8ClampedArray([...colour, 255 * opacity]).buffer);
  for (let place = 0; place < pixels.length; place++) if (pixels[place]) words[place] = word;
  context.putImageData(image, 0, 0);
  return canvas;
}

// The border between object and the rest, as lines along the edges of pixels, in pixels of the picture.
export function contour(pixels, [height, width]) {
  const path = new Path2D();
  const at = (y, x) => (y >= 0 && x >= 0 && y < height && x < width ? pixels[y * width + x] : 0);
  for (let y = 0; y <= height; y++) {
    lines(width, (x) => at(y - 1, x) !== at(y, x), (from, to) => { path.moveTo(from, y); path.lineTo(to, y); });
  }
  for (let x = 0; x <= width; x++) {
    lines(height, (y) => at(y, x - 1) !== at(y, x), (from, to) => { path.moveTo(x, from); path.lineTo(x, to); });
  }
  return path;
}

function lines(length, differs, draw) {
  let start = -1;
  for (let place = 0; place <= length; place++) {
    const on = place < length && differs(place);
    if (on && start < 0) start = place;
    if (!on && start >= 0) {
      draw(start, place);
      start = -1;
    }
  }
}
