// The server that a page has come from: another one at the same address has other models and other pictures.

let first = null;

// Refuse an answer of another server than the one that answered first.
export function checkOrigin(response) {
  const server = response.headers.get("x-server");
  if (server === null) return; // of something in between, such as a proxy whose server is gone
  first ??= server;
  if (server !== first) throw new Error("The server has been started anew: reload this page.");
}
