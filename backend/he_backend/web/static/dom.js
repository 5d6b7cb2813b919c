// Elements made of data. Text only ever becomes a text node, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const by = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

// Rows of a table, redrawn only when what they show has changed: keeps focus and selection.
export function setRows(table, key, rows) {
  const text = JSON.stringify(key);
  if (table.dataset.shown === text) return;
  table.dataset.shown = text;
  table.tBodies[0].replaceChildren(...rows());
}

export function alertOf(error) {
  const alert = by("alert");
  alert.hidden = !error;
  alert.textContent = error ? error.message || String(error) : "";
}

export function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (size >= 1024 && unit < 3) { size /= 1024; unit += 1; }
  return `${unit ? size.toFixed(1) : size} ${units[unit]}`;
}

export function seconds(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "";
  return value < 1 ? `${(1000 * value).toFixed(value < 0.01 ? 2 : 0)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
}
