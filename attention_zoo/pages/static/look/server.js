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
  const refusal = new Error(`The server says ${answer.status}`);
  refusal.final = answer.status === 400; // what was asked for is not to be had, and will not be
  try {
    refusal.message = (await answer.json()).error ?? refusal.message;
  } catch { /* no JSON: the guard in front of the page answers in plain text */ }
  throw refusal;
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
    if (kept.refusal) throw kept.refusal;
    return kept;
  }
  let answer;
  try {
    answer = await ask("values", query);
  } catch (refusal) {
    if (refusal.final) answers.set(key, { refusal, size: 0 });
    throw refusal;
  }
  const buffer = await answer.arrayBuffer();
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
