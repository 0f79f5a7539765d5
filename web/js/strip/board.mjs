// Makes storyboards: queues them as prompts of their own.
import { api, app, notify, word } from "../host.mjs";
import { boardPrompt } from "./board_prompt.mjs";

const KEEP = "LongLive.Takes.Keep";
/** Why a graph has no storyboard, by what it lacks. */
const LACKS = { film: "board_film", direct: "board_direct" };

/** Queues the storyboard of the film that samplers make; returns the prompt's id. @param {string[]} samplers ids */
export async function queueStoryboard(samplers) {
  if (app.extensionManager.setting.get(KEEP) === false) return void notify("warn", word("board_keep"));
  try {
    const { output, workflow } = await app.graphToPrompt();
    // An id of its own each time: a storyboard whose take was deleted is made again, not found in the host's cache.
    const id = `storyboard-${Date.now()}`;
    const found = boardPrompt(output, samplers, id);
    if ("missing" in found) return void notify("warn", word(LACKS[found.missing]));
    return (await api.queuePrompt(0, { output: found.prompt, workflow }, { partialExecutionTargets: [id] })).prompt_id;
  } catch (error) {
    notify("error", String(error)); // the front-end's text of refused inputs
  }
}

/** Queues the whole graph, as Run does. */
export function makeFilm() {
  void app.queuePrompt(0);
}
