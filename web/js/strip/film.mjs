// What a strip shows of the film of its script, and what it asks to be done to it: a FilmFollower tells and does.

export class StripFilm {
  /** @type {import("../takes/routes.mjs").Take | undefined} */ #take;
  #making = false;
  /** Whether a storyboard is being made or waits for it. */
  boarding = false;
  /** What a run would make. */
  line = "";
  /** The offer to send the text to the film that is made. @type {import("./head.mjs").Live | undefined} */
  live;
  /** Versions that are being made. @type {import("./versions.mjs").Making | undefined} */
  versions;
  /** Locks or unlocks a shot of the take. @type {(shot: number, locked: boolean) => void} */
  onLock = () => {};
  /** Makes versions of a shot; returns an error, or "". @type {(shot: number, count: number) => Promise<string>} */
  onVersions = async () => "";
  /** Stops making them. */
  onStop = () => {};
  /** Makes the storyboard, or cancels it. */
  onBoard = () => {};
  /** Makes the stills that are missing on the storyboard. */
  onStill = () => {};
  /** Accepts the stills of shots by number, or not. @type {(shot: number | null, accepted: boolean) => void} */
  onAccept = () => {};
  /** Makes the film. */
  onFilm = () => {};

  /** @param {import("./strip.mjs").Strip} strip */
  constructor(strip) {
    this.strip = strip;
  }

  /** Whether the film or its storyboard is being made. */
  get running() {
    return this.#making || this.boarding;
  }

  /** Pictures of the shots by number; others show their number. @param {Map<number, string>} stills */
  setStills(stills) {
    this.strip.state.stills = stills;
    this.strip.draw();
  }

  /** What is known of the shots' films, by number. @param {Map<number, import("./cards.mjs").ShotState>} states */
  setStates(states) {
    this.strip.state.states = states;
    this.strip.draw();
  }

  /** The take of the script's film, if it has one. @param {import("../takes/routes.mjs").Take | undefined} take @param {boolean} making */
  setTake(take, making) {
    this.#take = take;
    this.#making = making;
    this.strip.dialogs.taken(take);
    this.strip.draw();
  }

  /** The shot in the take, if it can be changed now. @param {import("./reading.mjs").Shot} shot */
  taken({ number }) {
    return this.#making ? undefined : this.#take?.shots[number - 1];
  }

  /** @param {import("./versions.mjs").Making | undefined} versions that are being made */
  setVersions(versions) {
    this.versions = versions;
    this.strip.dialogs.taken(this.#take);
  }

  /** @param {boolean} boarding */
  setBoarding(boarding) {
    if (boarding === this.boarding) return;
    this.boarding = boarding;
    this.strip.draw();
  }

  /** @param {string} line */
  setLine(line) {
    if (line === this.line) return;
    this.line = line;
    this.strip.draw();
  }

  /** @param {import("./head.mjs").Live | undefined} live */
  setLive(live) {
    const changed = live?.label !== this.live?.label;
    this.live = live;
    if (changed) this.strip.draw();
  }
}
