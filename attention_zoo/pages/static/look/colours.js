// Colours of pictures. Brightness rises with the value, so that they can be told apart in grey and by the colour-blind.

// matplotlib's inferno at 17 even places (S. van der Walt, N. Smith; CC0); between them colours are mixed
const INFERNO = [
  [0, 0, 4], [12, 8, 38], [36, 12, 79], [66, 10, 104], [93, 18, 110], [120, 28, 109], [147, 38, 103], [174, 48, 92],
  [199, 62, 76], [221, 81, 58], [237, 105, 37], [248, 133, 15], [252, 165, 10], [250, 198, 45], [242, 230, 97],
  [246, 246, 132], [252, 255, 164],
];
const BLUE = [77, 191, 255]; // the most negative entry, as in the sheets of `maps`

// M. Okabe, K. Ito, Color Universal Design (2008), and darker ones of the same hues
const LABELS = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167],
  [235, 235, 235], [132, 90, 0], [30, 100, 150], [0, 84, 60], [140, 132, 20], [0, 52, 92], [118, 48, 0],
  [112, 56, 88], [120, 120, 120],
];

// The colour [red, green, blue] of a value in -1..1.
export function shade(value) {
  if (value < 0) return BLUE.map((part) => -value * part);
  const place = Math.min(Math.max(value, 0), 1) * (INFERNO.length - 1);
  const low = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[low].map((part, i) => part + (place - low) * (INFERNO[low + 1][i] - part));
}

export const label = (number) => LABELS[number % LABELS.length];

// Values scaled to -1..1 as in `maps`: the least becomes 0, or 0 stays 0 where there are negative ones.
export function scaled(values) {
  let least = Infinity, largest = -Infinity, size = 0;
  for (const value of values) {
    least = Math.min(least, value);
    largest = Math.max(largest, value);
    size = Math.max(size, Math.abs(value));
  }
  const zero = Math.max(least, 0), range = size - zero;
  const flat = range <= 1e-5 * size; // rounding must not look like attention
  return { least, largest, zero, size, at: (value) => (flat ? 0 : (value - zero) / range) };
}

// Colours (RGBA) of the values of a picture on its grid.
export function coloured(values, width, height, labels, only = null) {
  const pixels = new ImageData(width, height);
  const { at } = labels ? {} : scaled(values);
  values.forEach((value, place) => {
    const [red, green, blue] = labels ? label(value) : shade(at(value));
    const dim = only !== null && value !== only ? 60 : 255;
    pixels.data.set([red, green, blue, dim], 4 * place);
  });
  return pixels;
}
