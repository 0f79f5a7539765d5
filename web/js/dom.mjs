// Elements of the page.

/**
 * Makes an element with properties, `data-` and `aria-` attributes, a class and children; null children are left out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [properties] names with a dash, and `role`, are attributes
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role") made.setAttribute(name, String(value));
    else /** @type {any} */ (made)[name] = value;
  }
  made.append(.../** @type {(Node | string)[]} */ (children.filter((child) => child || child === "")));
  return made;
}

/**
 * A button with an icon of the host, whose label is its tooltip and its name for screen readers.
 *
 * @param {string} icon of PrimeIcons, such as `trash`
 * @param {string} label
 * @param {(event: MouseEvent) => unknown} onclick
 * @param {Record<string, any>} [properties]
 */
export function iconButton(icon, label, onclick, properties = {}) {
  const inner = element("i", { className: `pi pi-${icon}`, "aria-hidden": true });
  return element("button", { type: "button", title: label, "aria-label": label, onclick, ...properties }, inner);
}
