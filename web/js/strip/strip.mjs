// The strip of shots: draws the server's reading of a script, and edits the script through the server.
import { Cards } from "./cards.mjs";
import { icon, make } from "../dom.mjs";
import { Dialogs } from "./dialogs.mjs";
import { draggable } from "./drag.mjs";
import { drawHead } from "./head.mjs";
import { fit, layOut, MAX_PER_BLOCK, scrollTo } from "./layout.mjs";
import { listen } from "./listen.mjs";
import { applyFix, offsetOf, Reader } from "./reading.mjs";
import { fresh, stateOf } from "./state.mjs";
import { canChoose, drawTools } from "./tools.mjs";
import { drawRows, roundingsOf, roundingsRow, rowsOf, warnedShots } from "./warnings.mjs";

let strips = 0;

/** A seed that the shot does not have. @param {number | null} seed */
function freshSeed(seed) {
  const fresh = Math.floor(Math.random() * 1_000_000);
  return fresh === seed ? fresh + 1 : fresh;
}

/**
 * @typedef {(key: string, values?: Record<string, string | number>) => string} Word
 *
 * @typedef {object} Script what a strip needs of its node
 * @property {() => import("./reading.mjs").Question} read
 * @property {(text: string) => void} write as one step of undo
 * @property {() => boolean} wired whether the script comes over a wire
 * @property {(start: number, end: number) => void} select characters in the text
 * @property {() => string} key of the node, for what is remembered of it
 * @property {(path: string, body: object) => Promise<import("./reading.mjs").Answer>} request
 * @property {(path: string) => string} url makes an address of the server
 */

export class Strip {
  disposed = false;
  /** @type {Promise<unknown>} */ #edits = Promise.resolve();
  /** @type {import("./reading.mjs").Mistake | undefined} */ #mistake;
  /** @type {{index: number, blocks: number} | undefined} */ #preview;
  #layout = layOut([], 1);
  #perBlock = 1;
  /** @type {Set<number>} */ #warned = new Set();
  /** @type {import("../takes/routes.mjs").Take | undefined} */ #take;
  #running = false;
  #line = "";
  /** @type {import("./head.mjs").Live | undefined} */ #live;
  state = fresh();
  /** Called after a script without an error was read. */
  onRead = () => {};
  /** Locks or unlocks a shot of the take. @type {(shot: number, locked: boolean) => void} */
  onLock = () => {};

  /** @param {Script} script @param {Word} word */
  constructor(script, word) {
    this.script = script;
    this.word = word;
    this.id = `ll-strip-${++strips}`;
    this.head = make("div", { className: "ll-head" });
    this.marker = make("div", { className: "ll-marker", hidden: true });
    this.reel = make("div", { className: "ll-reel", role: "presentation" }, this.marker);
    this.list = make(
      "div",
      { className: "ll-film", role: "listbox", tabIndex: 0, "aria-label": word("strip_shots"), "aria-orientation": "horizontal" },
      this.reel,
    );
    this.tools = make("div", { className: "ll-tools", role: "toolbar", "aria-label": word("strip_tools") });
    this.rows = make("ul", { className: "ll-rows" });
    this.notes = make("div", { className: "ll-notes", role: "region", tabIndex: 0, "aria-label": word("strip_remarks") }, this.rows);
    this.element = make(
      "div",
      { className: "longlive-strip", role: "group", "aria-label": word("strip_title"), "data-capture-wheel": "true" },
      this.head,
      this.list,
      this.tools,
      this.notes,
    );
    this.cards = new Cards(this.reel, this.id, word);
    this.dialogs = new Dialogs(this);
    this.reader = new Reader(
      (question) => this.#request("", question),
      (answer, question) => this.#show(answer, question.script),
    );
    this.#listen();
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.list);
  }

  #listen() {
    listen(this, () => this.#drawCards());
    draggable(this.list, this.marker, {
      layout: () => this.#layout,
      perBlock: () => this.#perBlock,
      blocks: (index) => this.state.outline?.shots[index].blocks ?? 1,
      card: (index) => this.cards.element(index),
      select: (index) => this.select(index),
      preview: (index, blocks) => {
        this.#preview = { index, blocks };
        this.draw();
      },
      move: (index, to) => this.edit({ kind: "move", shot: index + 1, to: to + 1 }),
      stretch: (index, blocks) => this.#stretch(index, blocks),
      open: () => this.run({ name: "edit" }),
    });
  }

  /** Reads the script anew after it changed. */
  changed() {
    if (this.disposed) return;
    this.state = stateOf(this.script.key(), this.state);
    if (this.script.wired()) return this.draw();
    const question = this.script.read();
    if (this.state.outline && this.state.script === question.script) {
      this.#warned = warnedShots(this.state.outline);
      this.draw();
    }
    this.reader.ask(question);
  }

  /** Pictures of the shots by number; others show their number. @param {Map<number, string>} stills */
  setStills(stills) {
    this.state.stills = stills;
    this.draw();
  }

  /** What is known of the shots' films, by number. @param {Map<number, import("./cards.mjs").ShotState>} states */
  setStates(states) {
    this.state.states = states;
    this.draw();
  }

  /** The take of the script's film, if it has one. @param {import("../takes/routes.mjs").Take | undefined} take @param {boolean} running */
  setTake(take, running) {
    this.#take = take;
    this.#running = running;
    this.draw();
  }

  /** What a run would make, above the remarks. @param {string} line */
  setLine(line) {
    if (line === this.#line) return;
    this.#line = line;
    this.draw();
  }

  /** Offers to send the text to the film that is made. @param {import("./head.mjs").Live | undefined} live */
  setLive(live) {
    const changed = live?.label !== this.#live?.label;
    this.#live = live;
    if (changed) this.draw();
  }

  /** @param {import("./reading.mjs").Answer} answer @param {string} text that was read */
  #show({ outline, error }, text) {
    if (this.disposed) return;
    this.#mistake = error;
    this.#preview = undefined;
    if (outline) {
      this.state.outline = outline;
      this.state.script = text;
      this.#warned = warnedShots(outline);
      this.state.selected = Math.min(this.state.selected, outline.shots.length - 1);
    }
    this.draw();
    if (!error) this.onRead();
  }

  /** Draws everything. */
  draw() {
    const { outline } = this.state;
    this.element.classList.toggle("ll-stale", Boolean(this.#mistake));
    if (this.script.wired()) return this.#drawWired();
    this.element.classList.remove("ll-wired");
    if (!outline) return this.#drawRemarks();
    drawHead(this.head, outline, this.#live, this.word, {
      style: () => this.dialogs.style(),
      name: (name) => this.dialogs.name(name),
      zoom: (factor) => this.#zoom(factor),
    });
    const shots = outline.shots.map((shot, index) =>
      index === this.#preview?.index ? { ...shot, blocks: this.#preview.blocks } : shot,
    );
    const width = this.list.clientWidth - 2;
    if (!this.#preview) this.#perBlock = this.state.zoom || fit(shots, width);
    this.#layout = layOut(shots, this.#perBlock);
    this.#drawCards(shots);
    if (Math.abs(this.list.scrollLeft - this.state.scroll) > 1) this.list.scrollLeft = this.state.scroll;
    this.#drawTools();
    this.#drawRemarks();
    this.#refocus();
  }

  #drawWired() {
    this.element.classList.add("ll-wired");
    this.rows.replaceChildren(make("li", { className: "ll-hint" }, this.word("strip_wired")));
  }

  /** @param {import("./reading.mjs").Shot[]} [shots] with a length that is being dragged */
  #drawCards(shots) {
    const { outline, selected, stills, states, scroll } = this.state;
    if (!outline) return;
    const seconds = outline.block_seconds;
    const shown = shots?.map((shot, index) =>
      index === this.#preview?.index ? { ...shot, seconds: shot.seconds + (shot.blocks - outline.shots[index].blocks) * seconds } : shot,
    );
    this.cards.draw({
      outline: shown ? { ...outline, shots: shown } : outline,
      layout: this.#layout,
      selected,
      warned: this.#warned,
      stills,
      states,
      scroll,
      width: this.list.clientWidth,
    });
    this.list.setAttribute("aria-activedescendant", this.cards.cardId(selected));
  }

  #drawTools() {
    const shots = this.state.outline?.shots ?? [];
    const shot = shots[this.state.selected];
    drawTools(this.tools, shot, shots.length, shot && this.#taken(shot), this.word, (command) => this.run(command));
  }

  /** The shot in the take, if it can be changed now. @param {import("./reading.mjs").Shot} shot */
  #taken({ number }) {
    return this.#running ? undefined : this.#take?.shots[number - 1];
  }

  #drawRemarks() {
    const rows = rowsOf(this.state.outline, this.#mistake);
    const open = Boolean(this.rows.querySelector("details[open]"));
    drawRows(this.rows, rows, this.word, (row) => this.#showWords(row), (fix) => this.#mend(fix));
    const roundings = this.#mistake ? [] : roundingsOf(this.state.outline);
    if (roundings.length) this.rows.append(roundingsRow(roundings, this.word, open));
    if (!rows.length) this.rows.append(make("li", { className: "ll-hint" }, this.word("strip_hint")));
    if (this.#line && !this.#mistake) this.rows.prepend(make("li", { className: "ll-plan" }, icon("pi-play"), make("span", {}, this.#line)));
  }

  #refocus() {
    const { list } = this;
    if (!this.state.focused || document.activeElement === list || !list.isConnected) return;
    const { activeElement } = document;
    if (activeElement?.closest("input, textarea, .longlive-strip")) return; // the user is elsewhere by now
    list.focus({ preventScroll: true });
  }

  /** Selects a shot and scrolls to it. @param {number} index */
  select(index) {
    const count = this.state.outline?.shots.length ?? 0;
    if (!count) return;
    this.state.selected = Math.max(0, Math.min(index, count - 1));
    this.list.scrollLeft = scrollTo(this.#layout, this.state.selected, this.list.scrollLeft, this.list.clientWidth);
    this.state.scroll = this.list.scrollLeft;
    this.#drawCards();
    this.#drawTools();
  }

  /** @param {import("./keys.mjs").Command} command */
  run({ name, by = 0 }) {
    const { outline, selected } = this.state;
    const shot = outline?.shots[selected];
    if (!outline || !shot || this.script.wired()) return;
    const { number } = shot;
    const taken = this.#taken(shot);
    switch (name) {
      case "select":
        return this.select(selected + by);
      case "first":
        return this.select(0);
      case "last":
        return this.select(outline.shots.length - 1);
      case "move":
        if (!outline.shots[selected + by]) return;
        return this.edit({ kind: "move", shot: number, to: number + by });
      case "stretch":
        return this.#stretch(selected, Math.max(1, shot.blocks + by));
      case "split":
        return this.edit({ kind: "split", shot: number, blocks: Math.max(1, Math.ceil(shot.blocks / 2)) });
      case "cut":
        return this.edit({ kind: "cut", shot: number, cut: shot.continues });
      case "insert":
        return this.edit({ kind: "insert", shot: number + 1, text: this.word("strip_new_shot") }).then((error) => {
          if (!error) this.run({ name: "edit" });
        });
      case "edit":
        return this.dialogs.text(shot);
      case "seed":
        return this.dialogs.seed(shot);
      case "reroll":
        return this.reroll(number);
      case "lock":
        return taken && this.onLock(number, !taken.locked);
      case "versions":
        return taken && canChoose(taken) && this.dialogs.versions(taken);
      default:
        return this.edit({ kind: name, shot: number });
    }
  }

  /** @param {number} index @param {number} blocks */
  #stretch(index, blocks) {
    this.#preview = undefined;
    if (this.state.outline?.shots[index].blocks === blocks) return this.draw();
    this.edit({ kind: "stretch", shot: index + 1, blocks });
  }

  /** Gives a shot a new seed. @param {number} number */
  reroll(number) {
    const seed = this.state.outline?.shots[number - 1]?.seed ?? null;
    return this.edit({ kind: "seed", shot: number, seed: freshSeed(seed) });
  }

  /**
   * Gives a shot the text and the seed of a version: a run then takes its blocks from the take.
   *
   * @param {number} number
   * @param {import("../takes/routes.mjs").Version} version
   */
  choose(number, { text, seed }) {
    return this.edit({ kind: "text", shot: number, text }, { kind: "seed", shot: number, seed });
  }

  /**
   * Makes edits in the newest text as one step of undo, after the edits before them. Returns what is wrong, or "".
   *
   * @param {...({kind: string} & Record<string, unknown>)} edits
   * @returns {Promise<string>}
   */
  edit(...edits) {
    const done = this.#edits.then(() => this.#edit(edits));
    this.#edits = done;
    return done;
  }

  /** @param {({kind: string} & Record<string, unknown>)[]} edits */
  async #edit(edits) {
    const before = this.script.read();
    /** @type {import("./reading.mjs").Answer} */
    let answer = { script: before.script };
    for (const edit of edits) {
      if (answer.error) break;
      answer = await this.#request("/edit", { ...before, script: answer.script, edit });
    }
    if (this.disposed || this.script.read().script !== before.script) return this.word("strip_changed");
    const { script, outline, error, selected = 1, notes = [] } = answer;
    if (error || script === undefined || !outline) {
      const text = error ? [error.what, error.remedy].filter(Boolean).join(": ") : "";
      this.#say(text);
      return text;
    }
    this.reader.know({ ...before, script });
    this.state.selected = "shot" in edits[0] ? selected - 1 : this.state.selected;
    this.script.write(script);
    this.#mistake = undefined;
    this.#show({ outline }, script);
    this.select(this.state.selected);
    if (notes.length) this.#say(notes.join("; "), "note");
    return "";
  }

  /** Shows a line above the remarks. @param {string} text @param {"error" | "note"} [kind] */
  #say(text, kind = "error") {
    this.draw();
    this.rows.prepend(make("li", { className: `ll-${kind}` }, make("span", { role: "status" }, text)));
  }

  /** @param {string} path @param {object} body @returns {Promise<import("./reading.mjs").Answer>} */
  async #request(path, body) {
    try {
      return await this.script.request(`/longlive/script${path}`, body);
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      return { error: { what, remedy: "", line: 0, column: 0, fix: null } };
    }
  }

  /** @param {import("./reading.mjs").Fix} fix */
  #mend(fix) {
    this.script.write(applyFix(this.script.read().script, fix));
    this.changed();
    this.notes.focus({ preventScroll: true });
  }

  /** @param {import("./warnings.mjs").Row} row */
  #showWords({ line, column, end }) {
    const text = this.script.read().script;
    const from = offsetOf(text, line, column);
    this.script.select(from, end > column ? offsetOf(text, line, end) : offsetOf(text, line, Infinity));
  }

  /** @param {number} factor */
  #zoom(factor) {
    this.state.zoom = factor ? Math.max(2, Math.min(MAX_PER_BLOCK, this.#perBlock * factor)) : 0;
    this.draw();
    this.select(this.state.selected);
  }

  /** Ends what the strip does, when its node is removed. */
  dispose() {
    this.disposed = true;
    this.resized.disconnect();
  }
}
