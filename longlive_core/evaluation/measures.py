"""Comparison of a window's video frames with the synthetic film that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..training.world import BACKGROUNDS, COLOURS, PLACES, SIZE, WorldFilm, WorldShot, hero_centre, render, render_mask
from ..types import FPS, TIME_FACTOR
from .probe import Reading, nearest_place, read_frame
from .windows import Flicker, Frames, Kind, Window, measure_flicker

# What only the KV cache can supply to a shot whose caption does not describe the hero.
IDENTITY: Final = ("colour", "shape", "size")
ATTRIBUTES: Final = ("background", "pattern", "colour", "shape", "size", "position")


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at one window of a film shows, compared with the film that was asked for.

    seconds: start of the window in the film. correct: for each attribute, whether more than half of the frames show it.
    shapes: the shape that each frame shows, None without a hero. confidence: mean confidence of the probe.
    background_error, hero_error: distance between measured and expected colour in levels of 255; `hero_error` is None
    if no hero was found. wall_difference, hero_difference: mean absolute difference from the rendered film in levels,
    over the pixels outside and inside the hero. flicker: at a seam only.
    """

    shot: int
    block: int
    kind: Kind
    seconds: float
    correct: Mapping[str, bool]
    shapes: tuple[str | None, ...]
    confidence: float
    background_error: float
    hero_error: float | None
    wall_difference: float
    hero_difference: float
    flicker: Flicker | None


def look_at(film: WorldFilm, window: Window, frames: Frames) -> Look:
    """Compares the frames `[16, H, W, 3]` of a window with `film`. The probe reads one frame of each latent frame."""
    chosen = slice(TIME_FACTOR // 2, None, TIME_FACTOR)
    indices = np.arange(window.start, window.stop)[chosen]
    readings = [read_frame(frame) for frame in frames[chosen]]
    shot = film.shots[window.shot]
    seconds = (indices - sum(before.frames for before in film.shots[: window.shot])) / FPS
    correct = {
        "background": _majority([reading.background == shot.background for reading in readings]),
        "pattern": _majority([reading.pattern == shot.pattern for reading in readings]),
        "position": _resting_place(readings, shot, seconds.astype(np.float32)) == shot.place,
    }
    for name in IDENTITY:
        wanted = getattr(film.hero, name)
        correct[name] = _majority([r.hero is not None and getattr(r.hero, name) == wanted for r in readings])
    background_errors = [_distance(reading.background_rgb, BACKGROUNDS[shot.background]) for reading in readings]
    hero_errors = [_distance(r.hero_rgb, COLOURS[film.hero.colour]) for r in readings if r.found]
    truth = render(film, window.start, window.stop)[chosen]
    hero = render_mask(film, window.start, window.stop)[chosen] > 0
    difference = np.abs(frames[chosen].astype(np.int16) - truth).mean(axis=-1)
    return Look(
        shot=window.shot,
        block=window.block,
        kind=window.kind,
        seconds=window.start / FPS,
        correct=correct,
        shapes=tuple(None if reading.hero is None else reading.hero.shape for reading in readings),
        confidence=float(np.mean([reading.confidence for reading in readings])),
        background_error=float(np.mean(background_errors)),
        hero_error=float(np.mean(hero_errors)) if hero_errors else None,
        wall_difference=float(difference[~hero].mean()),
        hero_difference=float(difference[hero].mean()),
        flicker=measure_flicker(frames) if window.kind == "seam" else None,
    )


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 arrays of equal shape; infinite if they are equal."""
    if a.shape != b.shape:
        raise ValueError(f"PSNR needs two arrays of the same shape, not {list(a.shape)} and {list(b.shape)}")
    error = float(np.square(a.astype(np.float64) - b).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _resting_place(readings: Sequence[Reading], shot: WorldShot, seconds: NDArray[np.float32]) -> str | None:
    """The place nearest to the hero once its motion is subtracted; None if half of the frames or more show no hero."""
    found = np.array([reading.found for reading in readings])
    if 2 * found.sum() <= len(readings):
        return None
    motion = hero_centre(shot, seconds) - SIZE * np.array(PLACES[shot.place], dtype=np.float32)
    centres = np.array([reading.centre for reading in readings], dtype=np.float32)
    x, y = (centres - motion)[found].mean(axis=0).tolist()
    return nearest_place((x, y))


def _majority(hits: Sequence[bool]) -> bool:
    return 2 * sum(hits) > len(hits)


def _distance(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))
