// What a view shows, and its address: every control is a part of the address, so that a reload gives the same view.

export const DEFAULTS = {
  image: "", kind: "reads", layer: "last", head: "mean", step: "", token: "", corruption: "", severity: "3",
  prior: "", alpha: "", mode: "", every: "", strength: "60",
};

// What the controls can say of those that are no names, which the server knows.
const WHOLE = /^\d{1,6}$/;
const FITS = {
  layer: /^(last|\d{1,6})$/, head: /^(mean|each|\d{1,6})$/, step: WHOLE, token: /^(cls|\d{1,6},\d{1,6})$/, severity: /^[1-5]$/,
  every: /^1$/, strength: /^(100|\d{1,2})$/,
};

// The state of the address, and the parts of it that are left out since no control can say them.
export function fromAddress() {
  const query = new URLSearchParams(location.search);
  const given = Object.entries(DEFAULTS).filter(([name]) => query.get(name)).map(([name]) => [name, query.get(name)]);
  const fits = ([name, value]) => !(name in FITS) || FITS[name].test(value);
  const ignored = given.filter((each) => !fits(each)).map(([name, value]) => `${name}=${value.slice(0, 40)}`);
  return { state: { ...DEFAULTS, ...Object.fromEntries(given.filter(fits)) }, ignored };
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
