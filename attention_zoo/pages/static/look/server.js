// Asks the server. Errors are words for the page; answers of the same question are kept for a while.

import { checkOrigin } from "/static/common/origin.js";

const MOST_NUMBERS = 1 << 23;
const REFUSED = 64; // numbers that a refusal counts as
const answers = new Map();
let held = 0;

// What `read` makes of an answer, whose body may end early too.
async function ask(path, query, read, options) {
  const silent = () => {
    throw new Error("The server does not answer: does it still run?");
  };
  const answer = await fetch(`/api/${path}?${new URLSearchParams(query)}`, options).catch(silent);
  checkOrigin(answer);
  if (answer.ok) return read(answer).catch(silent);
  const refusal = new Error(`The server says ${answer.status}`);
  refusal.final = answer.status === 400; // what was asked for is not to be had, and will not be
  try {
    refusal.message = (await answer.json()).error ?? refusal.message;
  } catch { /* no JSON: the guard in front of the page answers in plain text */ }
  throw refusal;
}

export const askJson = (path, query, options) => ask(path, query, (answer) => answer.json(), options);

export async function askPicture(query) {
  return createImageBitmap(await ask("picture", query, (answer) => answer.blob()));
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
  let buffer;
  try {
    buffer = await ask("values", query, (answer) => answer.arrayBuffer());
  } catch (refusal) {
    if (refusal.final) keep(key, { refusal, size: REFUSED });
    throw refusal;
  }
  const size = new DataView(buffer).getUint32(0, true);
  const given = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const numbers = new Float32Array(buffer, 4 + size);
  const each = numbers.length / given.count;
  given.values = Array.from({ length: given.count }, (_, place) => numbers.subarray(place * each, (place + 1) * each));
  given.size = numbers.length;
  keep(key, given);
  return given;
}

// Ask anew for what was refused: an image that was gone may be back.
export function forgetRefusals() {
  for (const [key, { refusal, size }] of answers) {
    if (!refusal) continue;
    answers.delete(key);
    held -= size;
  }
}

function keep(key, given) {
  held -= answers.get(key)?.size ?? 0; // two tokens may have been asked for at once
  answers.delete(key);
  answers.set(key, given);
  held += given.size;
  for (const [oldest, gone] of answers) {
    if (held <= MOST_NUMBERS || gone === given) break;
    answers.delete(oldest);
    held -= gone.size;
  }
}
