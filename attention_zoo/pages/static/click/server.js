// Asks the server. Every answer is JSON, or a file; what goes wrong is an Error whose message a person can read.

import { checkOrigin } from "/static/common/origin.js";

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  checkOrigin(response);
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error;
  } catch { /* no JSON: the text itself */ }
  const refusal = new Error(message || `The server answers ${response.status}.`);
  refusal.final = response.status === 400; // what was asked for is not to be had
  throw refusal;
}

const post = (path, body, signal) => ask(path, { method: "POST", body, signal });

export const facts = async () => (await ask("/api/facts")).json();

export const answer = async (entry, signal) => (await post("/api/answer", JSON.stringify(entry), signal)).json();

export const upload = async (file) => (await post(`/api/pictures?name=${encodeURIComponent(file.name)}`, file)).json();

export const startMask = async (id, file) => (await post(`/api/pictures/${encodeURIComponent(id)}/mask`, file)).json();

export const exported = async (name, objects) => (await post(`/api/export/${name}`, JSON.stringify({ objects }))).blob();

// The pixels of a picture, as the server shows it.
export async function picture(id) {
  const response = await ask(`/api/pictures/${encodeURIComponent(id)}`);
  return createImageBitmap(await response.blob());
}
