// The player of one film: picture, scrub bar, a line of words and its buttons. It outlives the nodes that show it.
import { isRunning } from "../store.mjs";
import { Scrub } from "./scrub.mjs";
import { filmLine, length, made, whole } from "./words.mjs";

/** @typedef {import("../types").Film} Film */

/**
 * What a view asks for.
 *
 * @typedef {object} Actions
 * @property {import("./words.mjs").Word} word
 * @property {(time: number) => void} seek to a moment in seconds
 * @property {() => void} stop the run
 * @property {() => void} assets shows the film in the host's list of files
 */

/** @param {string} kind @param {() => void} press */
function button(kind, press) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = `longlive-${kind}`;
  element.addEventListener("click", press);
  element.addEventListener("pointerdown", (event) => event.button === 0 && event.stopPropagation());
  // The front-end binds keys of its own, which would also be pressed.
  element.addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && event.stopPropagation());
  return element;
}

/** @param {HTMLButtonElement} element @param {string} icon of PrimeIcons @param {string} label */
function dress(element, icon, label) {
  if (element.title === label) return;
  element.title = element.ariaLabel = label;
  const picture = document.createElement("i");
  picture.className = `pi pi-${icon}`;
  element.replaceChildren(picture);
}

export class View {
  element = document.createElement("div");
  video = document.createElement("video");
  still = document.createElement("img");
  #film;
  #actions;
  #scrub;
  #line = document.createElement("span");
  #play;
  #sound;
  #full;
  #stop;
  #assets;
  #note = "";

  /** @param {Film} film @param {Actions} actions */
  constructor(film, actions) {
    const { video, still, element } = this;
    this.#film = film;
    this.#actions = actions;
    this.#scrub = new Scrub(actions.seek, actions.word);
    this.#play = button("play", () => (video.paused ? void video.play().catch(() => {}) : video.pause()));
    this.#sound = button("sound", () => (video.muted = !video.muted));
    this.#full = button("full", () => void video.requestFullscreen?.());
    this.#stop = button("stop", actions.stop);
    this.#assets = button("assets", actions.assets);
    Object.assign(video, { muted: true, playsInline: true, preload: "auto" });
    video.addEventListener("click", () => this.#play.click());
    for (const type of ["timeupdate", "durationchange", "play", "pause", "volumechange", "ended", "seeking"])
      video.addEventListener(type, () => this.#draw());
    still.alt = "";
    this.#build();
    element.role = "group";
    element.ariaLabel = actions.word("film_label");
    this.show(film);
  }

  #build() {
    const [stage, bar, foot] = ["stage", "bar", "foot"].map((name) =>
      Object.assign(document.createElement("div"), { className: `longlive-${name}` }),
    );
    this.element.className = "longlive-player";
    this.#line.className = "longlive-line";
    stage.append(this.video, this.still);
    bar.append(this.#play, this.#scrub.element, this.#sound, this.#full);
    foot.append(this.#line, this.#stop, this.#assets);
    this.element.append(stage, bar, foot);
  }

  /** @param {Film} film */
  show(film) {
    this.#film = film;
    this.#draw();
  }

  /** Says a sentence in place of the line, as where the browser plays no such film. @param {string} text */
  say(text) {
    this.#note = text;
    this.#draw();
  }

  #draw() {
    const { word } = this.#actions;
    const [film, { video }] = [this.#film, this];
    const running = isRunning(film);
    this.element.dataset.state = film.state;
    this.element.classList.toggle("has-still", !!this.still.src && !this.still.hidden);
    const total = whole(film) || (Number.isFinite(video.duration) ? video.duration : 0);
    const end = running || film.frames < film.total_frames ? made(film) : total;
    this.#scrub.show({ at: Math.min(video.currentTime, total), made: end, total }, film.cuts);
    dress(this.#play, video.paused ? "play" : "pause", word(video.paused ? "film_play" : "film_pause"));
    dress(this.#sound, video.muted ? "volume-off" : "volume-up", word(video.muted ? "film_sound" : "film_mute"));
    dress(this.#full, "window-maximize", word("film_full"));
    dress(this.#assets, "images", word("film_assets"));
    const plays = video.readyState > 0 && !video.error;
    this.#play.disabled = this.#full.disabled = !plays;
    this.#sound.hidden = !/mp4a|opus/.test(film.mime);
    this.#stop.hidden = !running;
    this.#assets.hidden = running || !film.name || !film.frames;
    this.#stop.textContent = word(film.frames ? "film_keep" : "film_cancel");
    this.#stop.title = film.frames ? word("film_keep_hint", { made: length(made(film), word) }) : word("film_cancel");
    this.#line.textContent = this.#note && !running ? this.#note : filmLine(film, word);
    this.#line.title = [filmLine(film, word), this.#note, film.take].filter(Boolean).join("\n");
  }
}
