// A take in the list: its picture, length, size and state, and what one can do with it.
import { icon, iconButton, make } from "../dom.mjs";
import { word } from "../host.mjs";
import { clock, fileSize } from "../text.mjs";

/**
 * @typedef {object} RowActions
 * @property {() => void} open shows the shots of the take, or hides them
 * @property {() => void} load opens the workflow of the take
 * @property {() => void} timeline saves the edit as a file for editing programs
 * @property {() => void} prune
 * @property {() => void} remove
 */

/**
 * @param {import("./routes.mjs").TakeSummary} take
 * @param {(path: string) => string} url makes an address of the server
 * @param {RowActions} actions
 * @param {boolean} isOpen
 */
export function takeRow(take, url, actions, isOpen) {
  const facts = [clock(take.seconds), fileSize(take.bytes), timeAgo(take.modified * 1000, Date.now())];
  const heading = make(
    "button",
    { className: "longlive-take-head", type: "button", onclick: actions.open, "aria-expanded": isOpen },
    still(take.still, url),
    make(
      "span",
      { className: "longlive-take-text" },
      make("span", { className: "longlive-take-title" }, take.title),
      make("span", { className: "longlive-take-facts" }, facts.join(" · ")),
      take.complete && !take.making ? undefined : progress(take),
    ),
    icon(isOpen ? "pi-chevron-up" : "pi-chevron-down"),
  );
  const tools = make(
    "div",
    { className: "longlive-take-tools" },
    take.workflow ? iconButton("pi-folder-open", word("takes_load"), actions.load) : undefined,
    off(iconButton("pi-file-export", word("takes_timeline"), actions.timeline), take.making || !take.complete),
    off(iconButton("pi-eraser", word("takes_prune"), actions.prune), take.making),
    off(iconButton("pi-trash", word("takes_delete"), actions.remove), take.making),
  );
  const offered = take.removable ? make("span", { className: "longlive-take-offer" }, word("takes_removable")) : undefined;
  return make("article", { className: "longlive-take", "data-take": take.name }, heading, offered, tools);
}

/** Disables a button. @param {HTMLButtonElement} button @param {boolean} isOff */
export function off(button, isOff) {
  button.disabled = isOff;
  return button;
}

/** @param {string | null} address @param {(path: string) => string} url */
export function still(address, url) {
  const empty = make("span", { className: "longlive-take-still" }, icon("pi-video"));
  if (!address) return empty;
  return make("img", { className: "longlive-take-still", src: url(address), alt: "", loading: "lazy" });
}

/** @param {import("./routes.mjs").TakeSummary} take */
function progress(take) {
  const share = `${(100 * take.made) / Math.max(1, take.blocks)}%`;
  const bar = make("span", { className: "longlive-take-bar" }, make("span", {}));
  /** @type {HTMLElement} */ (bar.firstChild).style.width = share;
  const key = take.making ? "takes_making" : "takes_unfinished";
  return make("span", { className: "longlive-take-progress" }, bar, word(key, { made: take.made, blocks: take.blocks }));
}

/**
 * A time in the past, such as `5 min. ago`, in the language of the page.
 *
 * @param {number} then in milliseconds
 * @param {number} now
 */
export function timeAgo(then, now) {
  const seconds = Math.min(0, (then - now) / 1000);
  /** @type {[Intl.RelativeTimeFormatUnit, number][]} */
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  const [unit, length] = units.find(([, length]) => -seconds >= length) ?? ["second", 1];
  const format = new Intl.RelativeTimeFormat(document.documentElement.lang || "en", { numeric: "auto", style: "short" });
  return format.format(Math.round(seconds / length), unit);
}
