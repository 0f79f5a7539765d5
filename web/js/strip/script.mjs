// The script that a strip shows: its text in the node, and the server that reads and edits it.

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

/**
 * Asks the server about a script. What keeps it from answering is an answer too: a mistake without a place.
 *
 * @param {Script} script
 * @param {"" | "/edit"} path
 * @param {object} body
 * @returns {Promise<import("./reading.mjs").Answer>}
 */
export async function ask(script, path, body) {
  try {
    return await script.request(`/longlive/script${path}`, body);
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error);
    return { error: { what, remedy: "", line: 0, column: 0, fix: null } };
  }
}
