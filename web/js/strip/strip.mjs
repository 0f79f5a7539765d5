// The strip of shots: draws the server's reading of a script, and edits the script through the server.
import { make } from "../dom.mjs";
import { runCommand } from "./commands.mjs";
import { Dialogs } from "./dialogs.mjs";
import { Edits } from "./edits.mjs";
import { StripFilm } from "./film.mjs";
import { drawHead } from "./head.mjs";
import { listen } from "./listen.mjs";
import { Reader } from "./reading.mjs";
import { Reel } from "./reel.mjs";
import { Remarks } from "./remarks.mjs";
import { ask } from "./script.mjs";
import { fresh, stateOf } from "./state.mjs";
import { StillView } from "./still.mjs";
import { drawTools } from "./tools.mjs";

let strips = 0;

export class Strip {
  disposed = false;
  /** @type {import("./reading.mjs").Mistake | undefined} */ #mistake;
  state = fresh();
  /** Called after a script without an error was read. */
  onRead = () => {};

  /** @param {import("./script.mjs").Script} script @param {import("./script.mjs").Word} word */
  constructor(script, word) {
    this.script = script;
    this.word = word;
    this.id = `ll-strip-${++strips}`;
    this.film = new StripFilm(this);
    this.edits = new Edits(this);
    this.reel = new Reel(this);
    this.remarks = new Remarks(this);
    this.head = make("div", { className: "ll-head" });
    this.tools = make("div", { className: "ll-tools", role: "toolbar", "aria-label": word("strip_tools") });
    this.element = make(
      "div",
      { className: "longlive-strip", role: "group", "aria-label": word("strip_title"), "data-capture-wheel": "true" },
      this.head,
      this.reel.list,
      this.tools,
      this.remarks.element,
    );
    this.dialogs = new Dialogs(this);
    this.still = new StillView(this);
    this.reader = new Reader(
      (question) => ask(this.script, "", question),
      (answer, question) => this.#show(answer, question.script),
    );
    listen(this);
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.reel.list);
  }

  /** Reads the script anew after it changed. */
  changed() {
    if (this.disposed) return;
    this.state = stateOf(this.script.key(), this.state);
    if (this.script.wired()) return this.draw();
    const question = this.script.read();
    if (this.state.outline && this.state.script === question.script) this.draw();
    this.reader.ask(question);
  }

  /** @param {import("./reading.mjs").Answer} answer @param {string} text that was read */
  #show({ outline, error }, text) {
    if (this.disposed) return;
    this.#mistake = error;
    this.reel.settle();
    if (outline) {
      this.state.outline = outline;
      this.state.script = text;
      this.state.selected = Math.min(this.state.selected, outline.shots.length - 1);
    }
    this.draw();
    if (!error) this.onRead();
  }

  /**
   * Takes over what the server made of the script, and selects a shot.
   *
   * @param {import("./reading.mjs").Question} question the new text
   * @param {import("./reading.mjs").Outline} outline its reading
   * @param {number} selected index
   */
  edited(question, outline, selected) {
    this.reader.know(question);
    this.state.selected = selected;
    this.script.write(question.script);
    this.#show({ outline }, question.script);
    this.select(selected);
  }

  /** Draws everything. */
  draw() {
    const { outline } = this.state;
    const isWired = this.script.wired();
    this.element.classList.toggle("ll-stale", Boolean(this.#mistake));
    this.element.classList.toggle("ll-wired", isWired);
    if (isWired) return this.remarks.drawWired();
    if (!outline) return this.remarks.draw(this.#mistake);
    const { film } = this;
    drawHead(this.head, outline, film.live, this.word, {
      style: () => this.dialogs.style(),
      name: (name) => this.dialogs.name(name),
      zoom: (factor) => this.#zoom(factor),
      send: () => film.live?.send(),
      board: { running: film.boarding, press: () => film.onBoard() },
    });
    this.reel.draw(outline);
    this.#drawTools();
    this.remarks.draw(this.#mistake);
    this.reel.refocus();
  }

  #drawTools() {
    const shots = this.state.outline?.shots ?? [];
    const shot = shots[this.state.selected];
    this.still.draw();
    const taken = shot && this.film.taken(shot);
    const state = shot && this.state.states.get(shot.number);
    drawTools(this.tools, shot, shots.length, taken, state, this.word, (command) => this.run(command));
  }

  /** Shows a line above the remarks. @param {string} text @param {"error" | "note"} [kind] */
  say(text, kind = "error") {
    this.draw();
    this.remarks.say(text, kind);
  }

  /** Selects a shot and scrolls to it. @param {number} index */
  select(index) {
    const count = this.state.outline?.shots.length ?? 0;
    if (!count) return;
    this.state.selected = Math.max(0, Math.min(index, count - 1));
    this.reel.reveal();
    this.reel.drawCards();
    this.#drawTools();
  }

  /** @param {import("./keys.mjs").Command} command */
  run(command) {
    runCommand(this, command);
  }

  /** Gives a shot another length. @param {number} index @param {number} blocks */
  stretch(index, blocks) {
    this.reel.settle();
    if (this.state.outline?.shots[index].blocks === blocks) return this.draw();
    this.edits.make({ kind: "stretch", shot: index + 1, blocks });
  }

  /** @param {number} factor */
  #zoom(factor) {
    this.reel.zoom(factor);
    this.draw();
    this.select(this.state.selected);
  }

  /** Ends what the strip does, when its node is removed. */
  dispose() {
    this.disposed = true;
    this.resized.disconnect();
  }
}
