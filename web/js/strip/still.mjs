// The still of the selected shot, as large as the strip and over it: to look at, accept, reroll or edit.
import { iconButton, isStale, make } from "../dom.mjs";
import { commandOf } from "./keys.mjs";

/** Commands that leave the still open. */
const STAYS = ["select", "first", "last", "accept", "accept all", "reroll"];

export class StillView {
  /** @param {import("./strip.mjs").Strip} strip */
  constructor(strip) {
    this.strip = strip;
    this.panel = make("div", { className: "ll-editor ll-large", role: "dialog", tabIndex: -1 });
    this.panel.addEventListener("keydown", (event) => this.#key(event));
  }

  get isOpen() {
    return this.panel.isConnected;
  }

  open() {
    this.strip.element.append(this.panel);
    this.draw();
    this.panel.focus({ preventScroll: true });
  }

  close() {
    this.panel.remove();
    this.strip.reel.list.focus({ preventScroll: true });
  }

  /** Draws the selected shot, if the still is open. */
  draw() {
    const { word, reel } = this.strip;
    const { outline, selected, stills, states } = this.strip.state;
    const shot = outline?.shots[selected];
    if (!shot || !outline || !this.isOpen) return;
    const { number, text } = shot;
    const [still, state] = [stills.get(number), states.get(number)];
    const onBoard = state?.state === "board";
    if (!isStale(this.panel, [number, text, still, onBoard, state?.accepted, outline.shots.length])) return;
    const title = `${word("strip_shot", { shot: number })} · ${reel.cards.length(shot)}`;
    this.panel.setAttribute("aria-label", title);
    const had = this.panel.contains(document.activeElement);
    /** @param {string} sign @param {import("./keys.mjs").Command} command @param {string} label @param {boolean} [off] */
    const button = (sign, command, label, off = false) => {
      const made = iconButton(sign, label, () => this.#run(command));
      made.disabled = off;
      return made;
    };
    const accept = button(state?.accepted ? "pi-thumbs-up-fill" : "pi-thumbs-up", { name: "accept" }, word("strip_accept"), !onBoard);
    accept.ariaPressed = String(Boolean(state?.accepted));
    const picture = still ? make("img", { src: still, alt: text, className: "ll-still" }) : make("span", { className: "ll-number" }, String(number));
    this.panel.replaceChildren(
      make("div", { className: "ll-picture" }, picture),
      make(
        "div",
        { className: "ll-beside" },
        make("div", { className: "ll-editor-title" }, title),
        make("div", { className: "ll-words" }, text),
        make(
          "div",
          { className: "ll-editor-end" },
          button("pi-chevron-left", { name: "select", by: -1 }, word("strip_before"), number === 1),
          button("pi-chevron-right", { name: "select", by: 1 }, word("strip_after"), number === outline.shots.length),
          accept,
          button("pi-refresh", { name: "reroll" }, word("strip_reroll"), state?.locked),
          button("pi-pencil", { name: "edit" }, word("strip_edit")),
          iconButton("pi-times", word("strip_close"), () => this.close()),
        ),
      ),
    );
    if (had) this.panel.focus({ preventScroll: true });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    event.stopPropagation(); // what the keys do is not meant for the node
    const onButton = event.target instanceof HTMLButtonElement && [" ", "Enter"].includes(event.key);
    if (event.key === "Escape" || (event.key === " " && !onButton)) return this.close();
    const command = onButton ? undefined : commandOf(event);
    if (!command) return;
    event.preventDefault();
    this.#run(command);
  }

  /** @param {import("./keys.mjs").Command} command */
  #run(command) {
    if (command.name === "edit") this.close();
    if (command.name === "edit" || STAYS.includes(command.name)) this.strip.run(command);
  }
}
