// Makes versions of a shot through the host's queue: a prompt of the canvas with one node more, which alone runs.
import { api, app } from "../host.mjs";
import { nodeOf } from "./making.mjs";

const NODE = "LongLiveShotVersions";
export const SAMPLER = "LongLiveStreamingSampler";

/**
 * Queues the versions and returns the id of the prompt. Throws an Error that says why the server refuses.
 *
 * @param {string} sampler id of the node that samples the film
 * @param {string[]} films ids of the nodes that write the film
 * @param {number} shot from 1
 * @param {number} versions
 * @param {string} unconnected what is wrong if no node writes the film
 */
export async function queueVersions(sampler, films, shot, versions, unconnected) {
  const prompt = await app.graphToPrompt();
  const film = films.find((id) => prompt.output[id]?.inputs.vae);
  if (!film) throw new Error(unconnected);
  const { stream, vae } = prompt.output[film].inputs;
  const id = nodeOf(sampler);
  prompt.output[id] = { class_type: NODE, inputs: { stream, vae, shot, versions } };
  const { prompt_id } = await api.queuePrompt(0, prompt, { partialExecutionTargets: [id] });
  return prompt_id;
}

/** Takes a prompt out of the queue, or stops it; what it has finished stays. @param {string} prompt */
export async function stopPrompt(prompt) {
  await api.deleteItem("queue", prompt);
  await api.interrupt(prompt);
}
