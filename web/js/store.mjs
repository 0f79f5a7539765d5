// The films that this page knows of, as the server tells of them. Nodes come and go, with undo too; films stay.

/** @typedef {import("./types").Film} Film */

/** Whether a film is being made. @param {Film} film */
export const isRunning = ({ state }) => state === "waiting" || state === "making";

export class FilmStore {
  /** Films by key, the newest last. @type {Map<string, Film>} */
  #films = new Map();
  /** @type {Set<(film: Film) => void>} */
  #listeners = new Set();

  /**
   * Takes what the server tells of a film. An answer that an event has overtaken is left out.
   *
   * @param {Film} film
   */
  put(film) {
    const known = this.#films.get(film.key);
    if (known?.prompt_id === film.prompt_id) {
      if (isRunning(film) && (known.bytes > film.bytes || !isRunning(known))) return;
    } else {
      this.#films.delete(film.key);
    }
    this.#films.set(film.key, film);
    for (const listener of this.#listeners) listener(film);
  }

  /**
   * Takes all films that the server knows. A film that it no longer makes, as after a crash, is a stopped one.
   *
   * @param {Film[]} films
   */
  listed(films) {
    const keys = new Set(films.map(({ key }) => key));
    for (const film of [...this.#films.values()])
      if (isRunning(film) && !keys.has(film.key)) this.put({ ...film, state: "stopped", left: null, line: "" });
    films.forEach((film) => this.put(film));
  }

  /** @param {string} key */
  get(key) {
    return this.#films.get(key);
  }

  /** Whether a film is being made. */
  get running() {
    return [...this.#films.values()].some(isRunning);
  }

  /**
   * The newest film of a node.
   *
   * @param {string} workflow
   * @param {string[]} nodes ids of the node, one for each instance of its subgraph
   * @returns {Film | undefined}
   */
  newest(workflow, nodes) {
    const own = [...this.#films.values()].filter((film) => film.workflow === workflow && nodes.includes(film.node));
    return own.find(isRunning) ?? own.at(-1);
  }

  /** Calls back for every change of any film. @param {(film: Film) => void} listener @returns {() => void} to stop */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
