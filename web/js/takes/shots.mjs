// The shots of a take, each with its versions side by side.
import { iconButton, make } from "../dom.mjs";
import { word } from "../host.mjs";
import { off, still } from "./row.mjs";

/**
 * @typedef {object} ShotActions
 * @property {(shot: number, version: number) => void} choose
 * @property {(shot: number, locked: boolean) => void} lock
 * @property {(shot: number, mode: "ripple" | "keep") => void} retake
 */

/**
 * @param {import("./routes.mjs").Take} take
 * @param {(path: string) => string} url
 * @param {ShotActions} actions
 */
export function takeShots(take, url, actions) {
  return make("div", { className: "longlive-take-shots" }, ...take.shots.map((shot) => shotRow(take, shot, url, actions)));
}

/**
 * @param {import("./routes.mjs").Take} take
 * @param {import("./routes.mjs").TakeShot} shot
 * @param {(path: string) => string} url
 * @param {ShotActions} actions
 */
function shotRow(take, shot, url, actions) {
  const number = shot.shot;
  const sign = shot.locked ? "pi-lock" : "pi-lock-open";
  const label = word(shot.locked ? "takes_unlock" : "takes_lock", { shot: number });
  const lock = off(iconButton(sign, label, () => actions.lock(number, !shot.locked)), take.making);
  lock.ariaPressed = String(shot.locked);
  const fixed = take.making || shot.locked || shot.given;
  const reroll = iconButton("pi-refresh", word("takes_reroll", { shot: number }), () => actions.retake(number, "ripple"));
  const keep = iconButton("pi-replay", word("takes_reroll_keep", { shot: number }), () => actions.retake(number, "keep"));
  off(reroll, fixed);
  off(keep, fixed || number === take.shots.length || !take.complete);
  const versions = shot.versions.map((version) => versionCard(shot, version, url, actions, take.making));
  return make(
    "section",
    { className: "longlive-take-shot" },
    make("header", {}, make("span", {}, word("takes_shot", { shot: number })), reroll, keep, lock),
    make(
      "div",
      { className: "longlive-take-versions", role: "radiogroup", "aria-label": word("takes_versions", { shot: number }) },
      ...versions,
    ),
  );
}

/**
 * @param {import("./routes.mjs").TakeShot} shot
 * @param {import("./routes.mjs").Version} version
 * @param {(path: string) => string} url
 * @param {ShotActions} actions
 * @param {boolean} making
 */
function versionCard(shot, version, url, actions, making) {
  const isChosen = version.version === shot.chosen;
  const seed = version.seed === null ? "" : ` · ${word("takes_seed", { seed: version.seed })}`;
  const state = version.blocks < shot.blocks ? ` · ${word("takes_not_made")}` : "";
  return make(
    "button",
    {
      type: "button",
      role: "radio",
      "aria-checked": isChosen,
      className: "longlive-take-version",
      title: version.text,
      disabled: making || shot.locked,
      onclick: () => isChosen || actions.choose(shot.shot, version.version),
    },
    still(version.still, url),
    make("span", {}, `${word("takes_version", { version: version.version + 1 })}${seed}${state}`),
  );
}
