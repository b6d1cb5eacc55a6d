// Asks the server. Errors are words for the page; answers of the same question are kept for a while.

const MOST_NUMBERS = 1 << 23;
const answers = new Map();
let held = 0;

async function ask(path, query, options) {
  let answer;
  try {
    answer = await fetch(`/api/${path}?${new URLSearchParams(query)}`, options);
  } catch {
    throw new Error("The server does not answer: does it still run?");
  }
  if (answer.ok) return answer;
  let words = `The server says ${answer.status}`;
  try {
    words = (await answer.json()).error ?? words;
  } catch { /* no JSON: the guard in front of the page answers in plain text */ }
  throw new Error(words);
}

export const askJson = async (path, query, options) => (await ask(path, query, options)).json();

export async function askPicture(query) {
  return createImageBitmap(await (await ask("picture", query)).blob());
}

// Pictures {count, prefix, grid, how, steps, layers, values: [Float32Array of each]}.
export async function askValues(query) {
  const key = new URLSearchParams(query).toString();
  const kept = answers.get(key);
  if (kept) {
    answers.delete(key);
    answers.set(key, kept);
    return kept;
  }
  const buffer = await (await ask("values", query)).arrayBuffer();
  const size = new DataView(buffer).getUint32(0, true);
  const given = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const numbers = new Float32Array(buffer, 4 + size);
  const each = numbers.length / given.count;
  given.values = Array.from({ length: given.count }, (_, place) => numbers.subarray(place * each, (place + 1) * each));
  given.size = numbers.length;
  answers.set(key, given);
  held += given.size;
  for (const [oldest, gone] of answers) {
    if (held <= MOST_NUMBERS || gone === given) break;
    answers.delete(oldest);
    held -= gone.size;
  }
  return given;
}
