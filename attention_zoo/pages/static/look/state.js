// What a view shows, and its address: every control is a part of the address, so that a reload gives the same view.

export const DEFAULTS = {
  image: "", kind: "reads", layer: "last", head: "mean", step: "", token: "", corruption: "", severity: "3",
  prior: "", alpha: "", mode: "", every: "", strength: "60",
};

export function fromAddress() {
  const query = new URLSearchParams(location.search);
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, query.get(name) ?? value]));
}

export function toAddress(state) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name === "severity" && !state.corruption) continue;
    if (String(value) !== DEFAULTS[name]) query.set(name, value);
  }
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

// The part of a query that says what models are shown.
export function shown(state) {
  const query = { image: state.image };
  if (state.corruption) Object.assign(query, { corruption: state.corruption, severity: state.severity });
  return query;
}

export const prior = (state) =>
  Object.fromEntries(["prior", "alpha", "mode"].filter((name) => state[name] !== "").map((name) => [name, state[name]]));
