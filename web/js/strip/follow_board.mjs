// Makes the storyboard of a strip's film, and shows on the strip how far it is.
import { onPromptEnd, word, workflowId } from "../host.mjs";
import { films } from "../player/mount.mjs";
import { isRunning } from "../store.mjs";
import { queueStoryboard } from "./board.mjs";
import { SAMPLER, stopPrompt } from "./make_versions.mjs";
import { statesOfBoard } from "./shot_states.mjs";

/** Behind the id of a sampler: the storyboard of its film, as the server tells of it. */
const BOARD = ".board";

export class BoardFollower {
  /** The prompt of a storyboard that waits in the queue or is being made. */
  #prompt = "";
  #stills = 0;

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
    strip.film.onBoard = () => void this.#make(false);
    strip.film.onStill = () => void this.#make(true);
  }

  dispose() {
    this.forget();
  }

  /** The storyboard that is being made. */
  get running() {
    const board = films.newest(workflowId(), this.ids(SAMPLER).map((id) => `${id}${BOARD}`));
    return board && isRunning(board) ? board : undefined;
  }

  /** Shows whether a storyboard is being made or waits for it. */
  settle() {
    this.strip.film.setBoarding(this.#prompt !== "" || this.running !== undefined);
  }

  /** Shows how far a storyboard is. @param {import("../types").Film} board */
  changed(board) {
    this.#prompt ||= board.prompt_id; // of a newer one that waits for this one to end
    this.strip.film.setBoarding(true);
    this.strip.film.setLive(undefined);
    this.strip.film.setLine(word("strip_board_making", { made: board.frames, count: board.total_frames }));
    this.show(board, this.strip.state.states);
    if (board.frames === this.#stills) return;
    this.#stills = board.frames;
    this.update();
  }

  /** @param {import("../types").Film} board @param {Map<number, import("./cards.mjs").ShotState>} known */
  show(board, known) {
    const { outline, stills } = this.strip.state;
    this.strip.film.setStates(statesOfBoard(board, outline?.shots ?? [], known, stills));
  }

  /** Makes the storyboard, or cancels the one that is being made. @param {boolean} anew makes it anew after that */
  async #make(anew) {
    const prompt = this.running?.prompt_id ?? this.#prompt;
    if (prompt) await stopPrompt(prompt);
    if (prompt && !anew) return this.#ended(prompt);
    this.strip.film.setBoarding(true);
    this.#prompt = (await queueStoryboard(this.ids(SAMPLER))) ?? "";
    this.strip.film.setBoarding(this.#prompt !== "");
  }

  /** @param {string | undefined} prompt that ended; none after a lost connection */
  #ended(prompt) {
    if (prompt && prompt !== this.#prompt) return;
    this.#prompt = "";
    this.update(); // the storyboard ends on the strip when its take can be changed again
  }
}
