// Shows on a strip what is known of its film: the film while it is made, then the newest take that it saved.
import { downstream } from "../graph.mjs";
import { api, executionIds, notify, request, word, workflowId } from "../host.mjs";
import { films, PLAYS } from "../player/mount.mjs";
import { isRunning } from "../store.mjs";
import { sendScript } from "../live.mjs";
import { lockShot, readTake } from "../takes/routes.mjs";
import { statesOfFilm, statesOfTake, stillsOf } from "./shot_states.mjs";

/** @typedef {import("../types").Node} Node */

const SAMPLER = "LongLiveStreamingSampler";
/** Events of the host after which takes may have changed. */
const ENDS = ["execution_success", "execution_interrupted", "execution_error", "reconnected"];
const PAUSE_MS = 300;

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
  #asked = 0;

  /** @param {Node} node @param {import("./strip.mjs").Strip} strip */
  constructor(node, strip) {
    this.node = node;
    this.strip = strip;
    this.later = () => this.update();
    followers.add(this);
    for (const type of ENDS) api.addEventListener(type, this.later);
    this.unsubscribe = films.subscribe(() => this.#filmChanged());
    strip.onRead = this.later;
    strip.onLock = (shot, locked) => this.#lock(shot, locked);
  }

  get takeName() {
    return this.#take?.name;
  }

  dispose() {
    followers.delete(this);
    clearTimeout(this.#timer);
    this.unsubscribe();
    for (const type of ENDS) api.removeEventListener(type, this.later);
  }

  /** Asks the server for the take, once after a burst of changes. */
  update() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), PAUSE_MS);
  }

  /** Ids of the nodes of a kind that get this script. @param {string} kind */
  #ids(kind) {
    return [...downstream(this.node)].filter(({ comfyClass }) => comfyClass === kind).flatMap(executionIds);
  }

  #film() {
    return films.newest(workflowId(), this.#ids(PLAYS));
  }

  #filmChanged() {
    const film = this.#film();
    const { outline } = this.strip.state;
    if (!film || !outline || !isRunning(film)) return;
    const { script } = this.strip.script.read();
    if (this.#begun.prompt !== film.prompt_id) this.#begun = { prompt: film.prompt_id, script };
    this.strip.setLine("");
    this.#offerLive(script, film);
    this.strip.setStates(statesOfFilm(film, outline.shots));
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
      this.strip.setLive(undefined);
    };
    this.strip.setLive(edited ? { label: word("live_button", { shot: film.shot + 1 }), send } : undefined);
  }

  async #ask() {
    const asked = ++this.#asked;
    const [sampler] = this.#ids(SAMPLER);
    if (!sampler || !this.node.graph || this.strip.script.wired()) return;
    try {
      const query = new URLSearchParams({ workflow: workflowId(), node: sampler });
      const { takes } = await request(`/longlive/takes?${query}`);
      const take = takes.length ? await readTake(takes[0].name) : undefined;
      const { script, default_seconds } = this.strip.script.read();
      const path = `/longlive/takes/${encodeURIComponent(take?.name ?? "")}/changes`;
      let refusal = "";
      const changes =
        take &&
        (await request(path, { script, default_seconds }).catch((error) => {
          refusal = error.message; // as for an edit of a locked shot
        }));
      if (asked !== this.#asked) return;
      this.#show(take, changes);
      if (refusal) this.strip.setLine(refusal);
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
    this.#take = take;
    this.strip.setTake(take, running);
    if (running) this.#offerLive(this.strip.script.read().script, film);
    else this.strip.setLive(undefined);
    if (!take) {
      this.strip.setStills(new Map());
      if (!running) this.strip.setStates(new Map());
      return this.strip.setLine("");
    }
    const stills = [...stillsOf(take, running ? undefined : changes)];
    this.strip.setStills(new Map(stills.map(([number, still]) => [number, api.apiURL(still)])));
    if (running) return;
    this.strip.setStates(changes ? statesOfTake(changes, take) : new Map());
    this.strip.setLine(changes && changes.remade + changes.new ? word("strip_run_makes", { line: changes.line }) : "");
  }

  /** @param {number} shot @param {boolean} locked */
  async #lock(shot, locked) {
    if (!this.#take) return;
    try {
      await lockShot(this.#take.name, shot, locked);
    } catch (error) {
      notify("error", /** @type {Error} */ (error).message);
    }
    this.update();
  }
}
