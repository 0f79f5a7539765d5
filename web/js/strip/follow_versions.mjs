// Makes versions of a shot of a strip's film, and shows on the strip how far they are.
import { notify, onPromptEnd, word, workflowId } from "../host.mjs";
import { films, PLAYS } from "../player/mount.mjs";
import { isRunning } from "../store.mjs";
import { queueVersions, SAMPLER, stopPrompt } from "./make_versions.mjs";
import { makingOf, nodeOf } from "./making.mjs";

export class VersionsFollower {
  /** Versions that wait in the queue. @type {{prompt: string, shot: number, wanted: number} | undefined} */ #queued;
  #made = 0;

  /**
   * @param {import("./strip.mjs").Strip} strip
   * @param {(kind: string) => string[]} ids of the nodes of a kind that get the script
   * @param {() => void} update reads the take anew
   */
  constructor(strip, ids, update) {
    this.strip = strip;
    this.ids = ids;
    this.update = update;
    this.forget = onPromptEnd((prompt) => this.#ended(prompt));
    this.unsubscribe = films.subscribe(() => this.#changed());
    strip.film.onVersions = (shot, count) => this.#make(shot, count);
    strip.film.onStop = () => this.#stop();
  }

  dispose() {
    this.unsubscribe();
    this.forget();
  }

  /** The versions that are made or were made last. */
  #film() {
    return films.newest(workflowId(), this.ids(SAMPLER).map(nodeOf));
  }

  #changed() {
    const film = this.#film();
    const running = film !== undefined && isRunning(film);
    if (film?.prompt_id === this.#queued?.prompt && (film?.versions || !running)) this.#queued = undefined; // it has begun
    this.strip.film.setVersions(makingOf(film, this.#queued));
    const made = film?.versions?.made.length ?? 0;
    if (made === this.#made) return;
    this.#made = made;
    this.update(); // another version has a picture
  }

  /** @param {number} shot @param {number} wanted */
  async #make(shot, wanted) {
    const [sampler] = this.ids(SAMPLER);
    if (!sampler) return word("versions_no_film");
    try {
      const prompt = await queueVersions(sampler, this.ids(PLAYS), shot, wanted, word("versions_no_film"));
      this.#queued = { prompt, shot, wanted };
      this.#changed();
      return "";
    } catch (error) {
      return String(error).replace(/^Error: /, ""); // an error of the host says why only so
    }
  }

  #stop() {
    const film = this.#film();
    const prompt = film && isRunning(film) ? film.prompt_id : this.#queued?.prompt;
    if (!prompt) return;
    if (prompt === this.#queued?.prompt) this.#queued = undefined;
    stopPrompt(prompt).catch((error) => notify("error", error.message));
    this.#changed();
  }

  /** @param {string | undefined} prompt that is over; undefined after the server was away */
  #ended(prompt) {
    if (prompt !== undefined && prompt !== this.#queued?.prompt) return;
    this.#queued = undefined;
    this.#changed();
  }
}
