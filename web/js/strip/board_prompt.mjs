// The prompt that makes the storyboard of a film: the part of the film's prompt that leads to its sampler.

/**
 * @typedef {{class_type: string, inputs: Record<string, unknown>}} PromptNode
 * @typedef {Record<string, PromptNode>} Prompt
 */

const BOARD = "LongLiveStoryboard";
/** Nodes that make something of a film with a VAE. */
const READERS = [BOARD, "LongLiveAsyncDecode"];

/** @param {unknown} value @returns {value is [string, number]} */
const isLink = (value) => Array.isArray(value) && value.length === 2 && typeof value[0] === "string";

/**
 * Ids of nodes and of all nodes that they depend on.
 *
 * @param {Prompt} prompt
 * @param {string[]} ids
 */
export function upstream(prompt, ids) {
  const found = new Set(ids.filter((id) => id in prompt));
  for (const id of found)
    for (const value of Object.values(prompt[id].inputs)) if (isLink(value) && value[0] in prompt) found.add(value[0]);
  return found;
}

/**
 * The prompt of the storyboard of the first film that one of the samplers makes, with its node under an id of its own.
 *
 * @param {Prompt} prompt of the whole graph
 * @param {string[]} samplers ids
 * @param {string} id
 * @returns {{prompt: Prompt} | {missing: "film" | "direct"}} or what the graph lacks: a film, or one whose reader is
 *   right behind a sampler, so that the storyboard is kept for it
 */
export function boardPrompt(prompt, samplers, id) {
  const readers = Object.values(prompt)
    .filter(({ class_type: kind, inputs }) => READERS.includes(kind) && isLink(inputs.stream) && isLink(inputs.vae))
    .sort((a, b) => READERS.indexOf(a.class_type) - READERS.indexOf(b.class_type));
  const links = readers.map(({ inputs }) => /** @type {{stream: [string, number], vae: [string, number]}} */ (inputs));
  const direct = links.find(({ stream }) => samplers.includes(stream[0]) && !isLink(prompt[stream[0]].inputs.state));
  if (!direct) {
    const reached = links.some(({ stream }) => samplers.some((sampler) => upstream(prompt, [stream[0]]).has(sampler)));
    return { missing: reached ? "direct" : "film" };
  }
  const { stream, vae } = direct;
  const needed = [...upstream(prompt, [stream[0], vae[0]])].map((key) => [key, prompt[key]]);
  return { prompt: { ...Object.fromEntries(needed), [id]: { class_type: BOARD, inputs: { stream, vae } } } };
}
