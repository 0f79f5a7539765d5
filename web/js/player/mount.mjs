// Puts players into LongLive Async Decode. Films and players belong to the page; a node's widget is a frame around one.
import { api, app, executionIds, fixedWidget, loadStyle, request, word, workflowId } from "../host.mjs";
import { FilmStore } from "../store.mjs";
import { Player } from "./player.mjs";

/** @typedef {import("../types").Film} Film */
/** @typedef {import("../types").Node} Node */

/** The node that shows its film in a player. */
export const PLAYS = "LongLiveAsyncDecode";
// The other one shows sample films, one after another.
const MOUNTS = [PLAYS, "LongLiveTrainLora"];
const HEIGHT = 248;
const FILMS = "/longlive/films";
// A node that comes back within this time, as by undo, gets its player as it was.
const GRACE_MS = 5000;
// While a film is made and the server has told nothing for so long, it is asked: events can be late or lost.
const SILENCE_MS = 5000;

export const films = new FilmStore();
/** Players by the key of their film. @type {Map<string, Player>} */
const players = new Map();
/** Frames by node. @type {Map<Node, HTMLElement>} */
const frames = new Map();

/** @param {Film} film */
function view(film) {
  const query = new URLSearchParams({ filename: film.name, subfolder: film.subfolder, type: film.type });
  return `/view?${query}`;
}

/** @type {import("./player.mjs").Source} */
const source = {
  async read(film, from, to, signal) {
    const headers = { Range: `bytes=${from}-${to - 1}` };
    const answer = await api.fetchApi(view(film), { headers, cache: "no-store", signal });
    if (!answer.ok) throw new Error(`${film.name}: ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  },
  address: (film) => api.apiURL(view(film)),
  blocks: async ({ key }) => (await request(`${FILMS}/${key}`)).blocks,
};

function openAssets() {
  const { sidebarTab } = app.extensionManager;
  if (sidebarTab.activeSidebarTabId !== "assets") sidebarTab.toggleSidebarTab("assets");
}

/** @param {Film} film */
function playerOf(film) {
  const known = players.get(film.key);
  if (known) return known;
  const stop = () => void api.interrupt(films.get(film.key)?.prompt_id ?? film.prompt_id);
  const player = new Player(film, source, { word, stop, assets: openAssets });
  players.set(film.key, player);
  return player;
}

/** Puts the player of a node's newest film into its frame. @param {Node} node @param {HTMLElement} frame */
function place(node, frame) {
  const film = films.newest(workflowId(), executionIds(node));
  const player = film && playerOf(film);
  if (player?.view.element.parentElement === frame) return;
  frame.replaceChildren(...(player ? [player.view.element] : []));
  player?.moved();
}

function placeAll() {
  for (const [node, frame] of frames) place(node, frame);
}

/** Closes the players that no node shows any more. */
function closeUnused() {
  for (const [key, player] of players) {
    const shown = [...frames.values()].some((frame) => frame.contains(player.view.element));
    if (!shown && players.delete(key)) player.close();
  }
}

let heard = 0;

/** Asks the server for the films if it is silent about one that is being made. */
function askIfSilent() {
  if (!films.running || performance.now() - heard < SILENCE_MS) return;
  heard = performance.now();
  void refresh().catch(() => {});
}

async function refresh() {
  const query = new URLSearchParams({ client: api.clientId ?? "" });
  films.listed(await request(`${FILMS}?${query}`));
}

/** A film that ran before this page knew of it: its node was cached. @param {any} detail of the event `executed` */
function cached({ node, display_node: shown, output, prompt_id: prompt }) {
  const [file] = output?.video ?? [];
  const own = app.graph.getNodeById(String(shown ?? node).split(":")[0]);
  if (!file || !own || films.newest(workflowId(), [node])?.name === file.filename) return;
  if (!MOUNTS.includes(own.comfyClass) && !own.subgraph) return;
  const none = { bytes: 0, fps: 0, width: 0, height: 0, shot: 0, shots: 0, cuts: [], pace: 0, left: null, line: "" };
  const { filename: name, subfolder, type } = file;
  const key = `cached ${workflowId()} ${node}`;
  films.put({
    ...{ ...none, key, prompt_id: prompt, node, workflow: workflowId(), name, subfolder, type, mime: "", take: null },
    ...{ frames: 1, total_frames: 1, state: "done" },
  });
}

/** Wheel and middle button move the canvas also over a widget; Nodes 2.0 sees to it itself. @param {HTMLElement} frame */
function forward(frame) {
  const classic = () => frame.closest(".dom-widget") !== null;
  frame.addEventListener("wheel", (event) => classic() && app.canvas.processMouseWheel(event), { passive: true });
  frame.addEventListener("pointerdown", (event) => classic() && event.button === 1 && app.canvas.processMouseDown(event));
}

/** @param {Node} node */
function mount(node) {
  const frame = document.createElement("div");
  frame.className = "longlive-frame";
  frame.dataset.empty = word("film_empty");
  forward(frame);
  fixedWidget(node, "longlive_film", frame, HEIGHT, word("film_label"));
  frames.set(node, frame);
  const { onAdded, onConfigure, onRemoved } = node;
  // The node has no id yet, and its graph none of the workflow.
  const later = () => setTimeout(() => frames.has(node) && place(node, frame));
  node.onAdded = (...added) => (onAdded?.apply(node, added), later());
  node.onConfigure = (...configured) => (onConfigure?.apply(node, configured), later());
  node.onRemoved = () => {
    onRemoved?.apply(node);
    frames.delete(node);
    setTimeout(closeUnused, GRACE_MS);
  };
  later();
}

export const player = {
  name: "LongLive.Player",
  setup() {
    loadStyle("player/player.css");
    films.subscribe((film) => {
      players.get(film.key)?.tell(film);
      placeAll();
    });
    api.addEventListener("longlive.film", ({ detail }) => {
      heard = performance.now();
      films.put(detail);
    });
    setInterval(askIfSilent, 1000);
    api.addEventListener("executed", ({ detail }) => cached(detail));
    api.addEventListener("reconnected", () => void refresh().catch(() => {}));
    api.addEventListener("b_preview_with_metadata", ({ detail }) => players.forEach((one) => one.preview(detail)));
    void refresh().catch(() => {});
  },
  /** @param {Node} node */
  nodeCreated(node) {
    if (MOUNTS.includes(node.comfyClass)) mount(node);
  },
};
