// The tab of all takes in the sidebar.
import { iconButton, make } from "../dom.mjs";
import { api, app, loadStyle, notify, word } from "../host.mjs";
import { refreshStrips, stripOfTake } from "../strip/follow.mjs";
import { fileSize } from "../text.mjs";
import { chooseVersion, deleteTake, listTakes, lockShot, pruneTake, readTake, readTimeline, readWorkflow, retakeShot } from "./routes.mjs";
import { takeRow } from "./row.mjs";
import { takeShots } from "./shots.mjs";

/** Events of the host after which takes may have changed. */
const CHANGES = ["execution_success", "execution_interrupted", "execution_error", "reconnected"];

/** @param {string} path */
const url = (path) => api.apiURL(path);

class TakesTab {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {string | null} */
    this.open = null;
    this.refresh = () => this.show();
    for (const type of CHANGES) api.addEventListener(type, this.refresh);
    root.classList.add("longlive-takes");
    void this.show();
  }

  destroy() {
    for (const type of CHANGES) api.removeEventListener(type, this.refresh);
  }

  async show() {
    try {
      const list = await listTakes();
      const opened = list.takes.find(({ name }) => name === this.open);
      const shots = opened && (await readTake(opened.name));
      const rows = list.takes.map((take) => this.row(take, take.name === shots?.name ? shots : undefined));
      const broken = list.unreadable.map(({ name, error }) =>
        make("p", { className: "longlive-take-broken", title: error }, word("takes_unreadable", { name })),
      );
      const empty = rows.length ? undefined : make("p", { className: "longlive-takes-empty" }, word("takes_empty"));
      this.root.replaceChildren(this.header(list), make("div", { className: "longlive-takes-list" }, empty, ...rows, ...broken));
    } catch (error) {
      this.root.replaceChildren(make("p", { className: "longlive-takes-empty", role: "alert" }, String(/** @type {Error} */ (error).message)));
    }
  }

  /** @param {import("./routes.mjs").TakeList} list */
  header(list) {
    const facts = word(list.keep ? "takes_space" : "takes_off", { size: fileSize(list.bytes), limit: fileSize(list.limit) });
    return make(
      "header",
      { className: "longlive-takes-header" },
      make("h2", {}, word("takes_title")),
      make("span", {}, facts),
      iconButton("pi-refresh", word("takes_refresh"), this.refresh),
    );
  }

  /** @param {import("./routes.mjs").TakeSummary} take @param {import("./routes.mjs").Take} [shots] */
  row(take, shots) {
    const row = takeRow(take, url, {
      open: () => {
        this.open = shots ? null : take.name;
        void this.show();
      },
      load: () => this.run(async () => app.loadGraphData((await readWorkflow(take.name)).workflow)),
      timeline: () =>
        this.run(async () => {
          const { file, text } = await readTimeline(take.name);
          saveFile(file, text);
        }),
      prune: () =>
        this.run(async () => {
          const { freed } = await pruneTake(take.name);
          notify("info", word("takes_pruned", { size: fileSize(freed) }));
        }),
      remove: () =>
        this.run(async () => {
          const question = { title: word("takes_delete"), message: word("takes_delete_question", { title: take.title }), type: "delete" };
          if (await app.extensionManager.dialog.confirm(question)) await deleteTake(take.name);
        }),
    }, Boolean(shots));
    if (shots)
      row.append(
        takeShots(shots, url, {
          choose: (shot, version) => this.run(() => choose(shots, shot, version)),
          lock: (shot, locked) => this.run(() => lockShot(take.name, shot, locked)),
          retake: (shot, mode) => this.run(() => reroll(shots, shot, mode)),
        }),
      );
    return row;
  }

  /** @param {() => Promise<unknown>} action */
  async run(action) {
    try {
      await action();
    } catch (error) {
      notify("error", /** @type {Error} */ (error).message);
    }
    refreshStrips();
    await this.show();
  }
}

/**
 * Chooses a version. A run follows the script, so where the script is on the canvas, the script changes; a take that
 * saved itself has no other way.
 *
 * @param {import("./routes.mjs").Take} take
 * @param {number} shot
 * @param {number} version
 */
async function choose(take, shot, version) {
  const strip = stripOfTake(take.name);
  if (strip) return say(await strip.edits.choose(shot, take.shots[shot - 1].versions[version]));
  if (take.auto) return notify("warn", word("takes_elsewhere"));
  const { notes } = await chooseVersion(take.name, shot, version);
  for (const note of notes) notify("info", note);
}

/**
 * Gives a shot a new seed, in the script as `choose` does. To keep the later shots unchanged, they are locked.
 *
 * @param {import("./routes.mjs").Take} take
 * @param {number} shot
 * @param {"ripple" | "keep"} mode
 */
async function reroll(take, shot, mode) {
  const strip = stripOfTake(take.name);
  if (!strip && take.auto) return notify("warn", word("takes_elsewhere"));
  if (!strip) await retakeShot(take.name, shot, mode);
  else {
    const later = mode === "keep" ? take.shots.slice(shot).filter(({ locked }) => !locked) : [];
    for (const { shot: number } of later) await lockShot(take.name, number, true);
    const error = await strip.edits.reroll(shot);
    if (error) return say(error);
  }
  notify("info", word("takes_run_makes", { shot }));
}

/** Lets the browser save a text. @param {string} name of the file @param {string} text */
function saveFile(name, text) {
  const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

/** @param {string} error or "" */
function say(error) {
  if (error) notify("error", error);
}

export const takes = {
  name: "LongLive.Takes",
  setup() {
    loadStyle("takes/takes.css");
    /** @type {TakesTab | undefined} */
    let tab;
    app.extensionManager.registerSidebarTab({
      id: "longlive-takes",
      icon: "pi pi-video",
      title: word("takes_title"),
      tooltip: word("takes_tooltip"),
      type: "custom",
      /** @param {HTMLElement} root */
      render: (root) => (tab = new TakesTab(root)),
      destroy: () => tab?.destroy(),
    });
  },
};
