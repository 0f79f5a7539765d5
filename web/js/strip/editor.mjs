// The form in which a text of the strip is edited: of a shot, of the style, of a name; or a seed.
import { make } from "../dom.mjs";

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {string} value
 * @property {boolean} [oneLine]
 * @property {string} [pattern] what a line must be
 */

/**
 * Opens a form over an element and calls `save` with the values; Enter saves, Escape closes.
 *
 * @param {HTMLElement} over
 * @param {string} title
 * @param {Field[]} fields
 * @param {(key: string) => string} word
 * @param {(values: Record<string, string>) => Promise<string>} save returns an error, or ""
 * @param {() => void} closed
 */
export function openEditor(over, title, fields, word, save, closed) {
  const message = make("span", { className: "ll-mistake", role: "alert" });
  const inputs = fields.map(({ name, value, oneLine, pattern }) =>
    oneLine
      ? make("input", { name, value, pattern: pattern ?? ".*", autocomplete: "off", spellcheck: false })
      : make("textarea", { name, value, rows: 3 }),
  );
  const form = make(
    "form",
    { className: "ll-editor", "aria-label": title },
    make("div", { className: "ll-editor-title" }, title),
    ...fields.map(({ label, oneLine }, index) =>
      make("label", { className: oneLine ? "ll-short" : "ll-long" }, make("span", {}, label), inputs[index]),
    ),
    make(
      "div",
      { className: "ll-editor-end" },
      message,
      make("button", { type: "button", className: "ll-button", onclick: () => close() }, word("strip_cancel")),
      make("button", { type: "submit", className: "ll-button ll-primary" }, word("strip_save")),
    ),
  );
  const close = () => {
    form.remove();
    closed();
  };
  const submit = async () => {
    if (!form.reportValidity()) return;
    const error = await save(Object.fromEntries(inputs.map(({ name, value }) => [name, value])));
    if (error) message.textContent = error;
    else close();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  form.addEventListener("keydown", (event) => {
    event.stopPropagation(); // a Delete in here is not meant for the node
    if (event.key === "Escape") close();
    const inField = event.target instanceof HTMLTextAreaElement;
    if (event.key !== "Enter" || !inField || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  over.append(form);
  const last = inputs.at(-1);
  last?.focus({ preventScroll: true });
  last?.select();
  return close;
}
