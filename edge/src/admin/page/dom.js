// Elements. Text always goes in as text: names come from other machines.

export const byId = (id) => document.getElementById(id);

// element("td", { class: "number" }, "text", child …)
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function shape(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

// Writes only what differs, so that nothing is drawn or read out again for nothing.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setAttribute(target, name, value) {
  if (value === null) target.removeAttribute(name);
  else if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value);
}

// A figure with its exact value beside the text: <data value="1234">1.2 KiB</data>.
export function setFigure(target, value, text) {
  setAttribute(target, "value", value ?? "");
  setText(target, text);
}

// Makes the children of `parent` those of `items`, in order: one element for each key, made once and then updated, so that focus and selection stay.
export function keyed(parent, items, keyOf, make, update) {
  const known = parent.keyed ?? (parent.keyed = new Map());
  const present = new Set();
  let before = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (present.has(key)) continue;
    present.add(key);
    let child = known.get(key);
    if (!child) {
      child = make(item);
      known.set(key, child);
    }
    update(child, item);
    if (child === before) before = before.nextElementSibling;
    else parent.insertBefore(child, before);
  }
  for (const [key, child] of known) {
    if (!present.has(key)) {
      child.remove();
      known.delete(key);
    }
  }
}
