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

/** An icon of the front-end. @param {string} name such as `pi-lock` */
export function icon(name) {
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
