// The versions of a shot side by side, over the strip; one of them is chosen.
import { make } from "../dom.mjs";

/**
 * Opens the versions of a shot over an element. Escape closes them, arrows go from one to the next.
 *
 * @param {HTMLElement} over
 * @param {import("../takes/routes.mjs").TakeShot} shot
 * @param {(path: string) => string} url
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {(version: import("../takes/routes.mjs").Version) => void} choose
 * @param {() => void} closed
 */
export function openVersions(over, shot, url, word, choose, closed) {
  const close = () => {
    panel.remove();
    closed();
  };
  const cards = shot.versions.map((version) => {
    const picture = version.still
      ? make("img", { src: url(version.still), alt: "", className: "ll-still", draggable: false })
      : make("span", { className: "ll-number" }, String(version.version + 1));
    const card = make(
      "button",
      {
        type: "button",
        className: "ll-version",
        role: "radio",
        "aria-checked": version.version === shot.chosen,
        title: version.text,
        onclick: () => {
          close();
          choose(version);
        },
      },
      make("span", { className: "ll-picture" }, picture),
      make("span", {}, describe(version, shot, word)),
    );
    return card;
  });
  const list = make("div", { className: "ll-versions", role: "radiogroup", "aria-label": word("takes_versions", { shot: shot.shot }) }, ...cards);
  const panel = make(
    "div",
    { className: "ll-editor", role: "dialog", "aria-label": word("takes_versions", { shot: shot.shot }) },
    make("div", { className: "ll-editor-title" }, word("takes_versions", { shot: shot.shot })),
    list,
    make("div", { className: "ll-editor-end" }, make("button", { type: "button", className: "ll-button", onclick: close }, word("strip_cancel"))),
  );
  panel.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") return close();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    cards[(cards.findIndex((card) => card === document.activeElement) + step + cards.length) % cards.length].focus();
  });
  over.append(panel);
  cards[shot.chosen]?.focus();
}

/**
 * @param {import("../takes/routes.mjs").Version} version
 * @param {import("../takes/routes.mjs").TakeShot} shot
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 */
function describe(version, shot, word) {
  const parts = [
    word("takes_version", { version: version.version + 1 }),
    version.seed === null ? "" : word("takes_seed", { seed: version.seed }),
    version.blocks < shot.blocks ? word("takes_not_made") : "",
  ];
  return parts.filter(Boolean).join(" · ");
}
