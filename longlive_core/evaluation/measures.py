"""Comparison of a window's video frames with the synthetic film that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..training.world import BACKGROUNDS, COLOURS, PLACES, SIZE, WorldFilm, WorldShot, hero_centre
from ..types import FPS, TIME_FACTOR
from .probe import Reading, nearest_place, read_frame
from .windows import Flicker, Frames, Window, measure_flicker

# What only the KV cache can supply to a shot whose caption does not describe the hero.
IDENTITY: Final = ("colour", "shape", "size")
ATTRIBUTES: Final = ("background", "pattern", "colour", "shape", "size", "position")


@dataclass(frozen=True, slots=True)
class WindowScore:
    """Result of comparing one window with the film that was asked for.

    seconds: start of the window in the film. correct: for each attribute, whether more than half of the frames show it.
    confidence: mean confidence of the probe. background_error, hero_error: distance between measured and expected
    colour in levels of 255; `hero_error` is None if no hero was found.
    """

    shot: int
    seconds: float
    correct: Mapping[str, bool]
    confidence: float
    background_error: float
    hero_error: float | None
    flicker: Flicker


def score_window(film: WorldFilm, window: Window, frames: Frames) -> WindowScore:
    """Compares the frames `[16, H, W, 3]` of a window with `film`. The probe reads one frame of each latent frame."""
    indices = np.arange(window.start, window.stop)[TIME_FACTOR // 2 :: TIME_FACTOR]
    readings = [read_frame(frames[index - window.start]) for index in indices]
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
    return WindowScore(
        shot=window.shot,
        seconds=window.start / FPS,
        correct=correct,
        confidence=float(np.mean([reading.confidence for reading in readings])),
        background_error=float(np.mean(background_errors)),
        hero_error=float(np.mean(hero_errors)) if hero_errors else None,
        flicker=measure_flicker(frames),
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
