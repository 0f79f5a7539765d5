// Shows on a strip what is known of its film: the film while it is made, then the newest take that it saved.
import { downstream } from "../graph.mjs";
import { api, executionIds, notify, word, workflowId } from "../host.mjs";
import { films, PLAYS } from "../player/mount.mjs";
import { isRunning } from "../store.mjs";
import { sendScript } from "../live.mjs";
import { acceptShot, lockShot, readContinuity, readTakeOfFilm } from "../takes/routes.mjs";
import { makeFilm } from "./board.mjs";
import { whenMeasured, withContinuity } from "./continuity.mjs";
import { BoardFollower } from "./follow_board.mjs";
import { settingsOf, sourcesOf } from "./sources.mjs";
import { VersionsFollower } from "./follow_versions.mjs";
import { SAMPLER } from "./make_versions.mjs";
import { statesOfFilm, statesOfTake, stillsOf } from "./shot_states.mjs";

/** @typedef {import("../types").Node} Node */

/** Events of the host after which takes may have changed, or the graph and with it what a run would make. */
const CHANGES = ["execution_success", "execution_interrupted", "execution_error", "reconnected", "graphChanged"];
const PAUSE_MS = 300;
/** While the server makes films, it is asked this often whether it has measured one. */
const MEASURE_MS = 5000;

/** @type {Set<FilmFollower>} */
const followers = new Set();

/** The strip on the canvas whose film a take is the newest of, if there is one. @param {string} take its name */
export function stripOfTake(take) {
  return [...followers].find((follower) => follower.takeName === take)?.strip;
}

/** Lets every strip read its take anew. */
export function refreshStrips() {
  for (const follower of followers) follower.update();
}

/** Follows the film of one script node. */
export class FilmFollower {
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {import("../takes/routes.mjs").Take | undefined} */ #take;
  #stillsOfShot = 0;
  /** The film that is made, and the text that it began with. */
  #begun = { prompt: "", script: "" };
  #asking = false;
  /** The continuity of a take at a time. @type {{ of: string, report?: import("../takes/routes.mjs").Continuity }} */
  #scores = { of: "" };
  /** Whether something changed since the take was asked for. */
  #stale = false;
  #disposed = false;

  /** @param {Node} node @param {import("./strip.mjs").Strip} strip */
  constructor(node, strip) {
    this.node = node;
    this.strip = strip;
    this.later = () => {
      strip.changed(); // cast files may be connected anew
      this.update();
    };
    followers.add(this);
    for (const type of CHANGES) api.addEventListener(type, this.later);
    this.unsubscribe = films.subscribe(() => this.#filmChanged());
    strip.onRead = () => this.#scriptChanged();
    strip.film.onLock = (shot, locked) => this.#change((take) => lockShot(take, shot, locked));
    strip.film.onAccept = (shot, accepted) => this.#change((take) => acceptShot(take, shot, accepted));
    strip.film.onFilm = makeFilm;
    this.board = new BoardFollower(strip, (kind) => this.#ids(kind), this.later);
    this.versions = new VersionsFollower(strip, (kind) => this.#ids(kind), this.later);
  }

  get takeName() {
    return this.#take?.name;
  }

  dispose() {
    followers.delete(this);
    this.#disposed = true;
    clearTimeout(this.#timer);
    this.unsubscribe();
    for (const type of CHANGES) api.removeEventListener(type, this.later);
    this.board.dispose();
    this.versions.dispose();
  }

  /** Asks the server for the take soon: one question at a time, and one more if something changed meanwhile. */
  update() {
    this.#stale = true;
    if (this.#asking || this.#disposed) return;
    this.#timer ??= setTimeout(() => this.#ask(), PAUSE_MS);
  }

  /** Waits until nobody types. */
  #scriptChanged() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.update();
  }

  /** Ids of the nodes of a kind that get this script. @param {string} kind */
  #ids(kind) {
    return [...downstream(this.node)].filter(({ comfyClass }) => comfyClass === kind).flatMap(executionIds);
  }

  #film() {
    return films.newest(workflowId(), this.#ids(PLAYS));
  }

  #filmChanged() {
    const board = this.board.running;
    if (board) return this.board.changed(board);
    const film = this.#film();
    const { outline } = this.strip.state;
    if (!film || !outline || !isRunning(film)) return;
    const { script } = this.strip.script.read();
    if (this.#begun.prompt !== film.prompt_id) this.#begun = { prompt: film.prompt_id, script };
    this.strip.film.setLine("");
    this.#offerLive(script, film);
    this.strip.film.setStates(statesOfFilm(film, outline.shots));
    if (film.shot === this.#stillsOfShot) return;
    this.#stillsOfShot = film.shot; // a new shot: the one before has a picture in the take
    this.update();
  }

  /** Offers to send an edited script to the film that is made. @param {string} script @param {import("../types").Film} film */
  #offerLive(script, film) {
    const edited = isRunning(film) && script !== this.#begun.script && film.shot < film.shots;
    const send = async () => {
      await sendScript(this.node);
      this.#begun.script = script;
      this.strip.film.setLive(undefined);
    };
    this.strip.film.setLive(edited ? { label: word("live_button", { shot: film.shot + 1 }), send } : undefined);
  }

  async #ask() {
    this.#timer = undefined;
    this.#asking = true;
    this.#stale = false;
    await this.#askTake();
    this.#asking = false;
    if (this.#disposed) return;
    this.board.settle();
    if (this.#stale) this.update();
  }

  async #askTake() {
    const node = [...downstream(this.node)].find(({ comfyClass }) => comfyClass === SAMPLER);
    const [sampler] = node ? executionIds(node) : [];
    if (!node || !sampler || !this.node.graph || this.strip.script.wired()) return;
    try {
      const { script, default_seconds, fps, cast } = this.strip.script.read();
      const settings = { ...settingsOf(node), fps };
      const sources = sourcesOf(node);
      const film = { workflow: workflowId(), node: sampler, script, default_seconds, cast, settings, sources };
      const { take, changes, refused } = await readTakeOfFilm(film);
      if (this.#disposed) return;
      this.#show(take ?? undefined, changes ?? undefined);
      if (refused) this.strip.film.setLine(refused); // as for an edit of a locked shot
    } catch {
      // Without an answer the cards stay as they are; the next change of script or film asks again.
    }
  }

  /**
   * @param {import("../takes/routes.mjs").Take | undefined} take
   * @param {import("./shot_states.mjs").Changes | undefined} changes
   */
  #show(take, changes) {
    const film = this.#film();
    const running = film !== undefined && isRunning(film);
    const board = this.board.running;
    this.#take = take;
    this.strip.film.setTake(take, running || board !== undefined);
    if (running) this.#offerLive(this.strip.script.read().script, film);
    else this.strip.film.setLive(undefined);
    if (!take) {
      this.strip.film.setStills(new Map());
      if (!running) this.strip.film.setStates(new Map());
      return this.strip.film.setLine("");
    }
    const stills = [...stillsOf(take, running ? undefined : changes, this.strip.state.outline?.shots)];
    this.strip.film.setStills(new Map(stills.map(([number, still]) => [number, api.apiURL(still)])));
    if (running) return;
    if (board) return this.board.show(board, changes ? statesOfTake(changes, take) : new Map());
    const states = changes ? statesOfTake(changes, take) : new Map();
    if (changes?.another_film) this.strip.film.setStates(states);
    else this.#showScores(take, states);
    this.strip.film.setLine(changes && changes.remade + changes.new ? word("strip_run_makes", { line: changes.line }) : "");
  }

  /**
   * Shows the states of the take's shots, and their continuity as soon as the server knows it.
   *
   * @param {import("../takes/routes.mjs").Take} take
   * @param {Map<number, import("./cards.mjs").ShotState>} states
   */
  #showScores(take, states) {
    const of = `${take.name} ${take.modified} ${take.making}`;
    if (this.#scores.of === of && this.#scores.report) return this.strip.film.setStates(withContinuity(states, this.#scores.report));
    this.strip.film.setStates(states);
    if (this.#scores.of === of || !take.film || !take.complete) return;
    this.#scores = { of };
    const isWanted = () => !this.#disposed && this.#scores.of === of;
    const pause = () => new Promise((resolve) => setTimeout(resolve, MEASURE_MS));
    whenMeasured(() => readContinuity(take.name), isWanted, pause).then(
      (report) => {
        if (!report) return;
        this.#scores = { of, report };
        if (report.shots.length) this.update();
      },
      () => {}, // cards without scores, until the take changes
    );
  }

  /** Changes the take. @param {(take: string) => Promise<unknown>} change with its name */
  async #change(change) {
    if (!this.#take) return;
    try {
      await change(this.#take.name);
    } catch (error) {
      notify("error", /** @type {Error} */ (error).message);
    }
    this.update();
  }
}
