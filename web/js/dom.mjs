// Elements of the page.

/**
 * An element with properties, attributes (`aria-…`, `data-…`, `role`) and children; values that are undefined are left
 * out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [values]
 * @param {(Node | string | undefined)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined) continue;
    if (name === "role" || name.includes("-")) element.setAttribute(name, String(value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** Icons that the front-end does not have, as lines in a square of 16. @type {Record<string, string>} */
const DRAWN = {
  "ll-cut": "M4.2 5.6a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM4.2 14.4a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM5.8 4.8 14 13M5.8 11.2 14 3",
  "ll-split": "M1.7 4.5h3.8v7H1.7ZM10.5 4.5h3.8v7h-3.8ZM8 1.5v2.2M8 6.4v3.2M8 12.3v2.2",
};
const SVG = "http://www.w3.org/2000/svg";

/** An icon of the front-end, or one of ours. @param {string} name such as `pi-lock` or `ll-cut` */
export function icon(name) {
  return DRAWN[name] ? drawn(DRAWN[name]) : classed(name);
}

/** @param {string} lines @returns {SVGElement} */
function drawn(lines) {
  const [svg, path] = [document.createElementNS(SVG, "svg"), document.createElementNS(SVG, "path")];
  for (const [name, value] of [["viewBox", "0 0 16 16"], ["class", "ll-drawn"], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  path.setAttribute("d", lines);
  svg.append(path);
  return svg;
}

/** @param {string} name */
function classed(name) {
  return make("i", { className: `pi ${name}`, "aria-hidden": "true" });
}

/**
 * A button with an icon, named for screen readers and on hovering.
 *
 * @param {string} name of the icon
 * @param {string} label
 * @param {() => void} onclick
 */
export function iconButton(name, label, onclick) {
  return make("button", { type: "button", className: "ll-icon", title: label, "aria-label": label, onclick }, icon(name));
}

/** What elements show. @type {WeakMap<Element, string>} */
const shown = new WeakMap();

/**
 * Whether an element shows something else than these facts, and is to be drawn anew. A button that is drawn anew while
 * it is pressed loses the press, and events of a film come ten times a second.
 *
 * @param {Element} element
 * @param {unknown} facts as JSON
 */
export function isStale(element, facts) {
  const shows = JSON.stringify(facts);
  if (shown.get(element) === shows) return false;
  shown.set(element, shows);
  return true;
}
