"""Measures of the frames of a window: correct attributes, flicker, and errors of colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..training.world import BACKGROUNDS, COLOURS, PLACES, SIZE, WorldFilm, WorldShot, hero_centre
from ..types import FPS, TIME_FACTOR
from .probe import Reading, nearest_place, read_frame
from .windows import REACH, Frames, Window

# Attributes of the hero, which captions of later shots omit, and attributes of the scene, which every caption names.
IDENTITY: Final = ("colour", "shape", "size")
SCENE: Final = ("background", "pattern", "position")
ATTRIBUTES: Final = ("background", "pattern", "colour", "shape", "size", "position")


@dataclass(frozen=True, slots=True)
class Flicker:
    """Mean absolute difference of consecutive frames, in levels of 0…255.

    seam: across the seam between two blocks. boundary: across other boundaries of latent frames. inside: over all pairs
    within a block.
    """

    seam: float
    boundary: float
    inside: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Measures of one window.

    seconds: since the start of the film. right: whether most of the frames show the requested attribute, by attribute.
    confidence: mean confidence of the probe. background_error, hero_error: distance between measured and requested
    colours in levels of 0…255; hero_error is None if no hero was found.
    """

    shot: int
    seconds: float
    right: Mapping[str, bool]
    confidence: float
    background_error: float
    hero_error: float | None
    flicker: Flicker


def judge_window(film: WorldFilm, window: Window, frames: Frames) -> Sample:
    """Compare the frames `[16, H, W, 3]` of a window with the requested film; one frame per latent frame is read."""
    moments = np.arange(window.start, window.stop)[TIME_FACTOR // 2 :: TIME_FACTOR]
    readings = [read_frame(frames[moment - window.start]) for moment in moments]
    shot = film.shots[window.shot]
    seconds = (moments - sum(before.frames for before in film.shots[: window.shot])) / FPS
    heroes = [reading.hero for reading in readings if reading.hero is not None]
    right = {
        "background": 2 * sum(reading.background == shot.background for reading in readings) > len(readings),
        "pattern": 2 * sum(reading.pattern == shot.pattern for reading in readings) > len(readings),
        "position": _place(readings, shot, seconds.astype(np.float32)) == shot.place,
    }
    for name in IDENTITY:
        hits = sum(getattr(hero, name) == getattr(film.hero, name) for hero in heroes)
        right[name] = 2 * hits > len(readings)
    background_errors = [_distance(reading.background_rgb, BACKGROUNDS[shot.background]) for reading in readings]
    hero_errors = [_distance(reading.hero_rgb, COLOURS[film.hero.colour]) for reading in readings if reading.found]
    return Sample(
        shot=window.shot,
        seconds=window.start / FPS,
        right=right,
        confidence=float(np.mean([reading.confidence for reading in readings])),
        background_error=float(np.mean(background_errors)),
        hero_error=float(np.mean(hero_errors)) if hero_errors else None,
        flicker=measure_flicker(frames),
    )


def measure_flicker(frames: Frames) -> Flicker:
    """Flicker of the frames `[16, H, W, 3]` of a window with the seam in its middle.

    Differences across boundaries of latent frames are larger than those within latent frames, with or without a seam.
    Therefore a seam is best compared with the other boundaries.
    """
    steps = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    pairs = np.arange(1, len(steps) + 1)
    seam = pairs == REACH * TIME_FACTOR
    boundary = (pairs % TIME_FACTOR == 0) & ~seam
    return Flicker(float(steps[seam].mean()), float(steps[boundary].mean()), float(steps[~seam].mean()))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 arrays of equal shape; infinite for equal arrays."""
    if a.shape != b.shape:
        raise ValueError(f"PSNR compares arrays of one shape, not {list(a.shape)} with {list(b.shape)}")
    error = float(np.square(a.astype(np.float64) - b).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _place(readings: Sequence[Reading], shot: WorldShot, seconds: NDArray[np.float32]) -> str | None:
    """Place of the hero after the requested motion is subtracted; None if most frames show no hero."""
    found = np.array([reading.found for reading in readings])
    if 2 * found.sum() <= len(readings):
        return None
    motion = hero_centre(shot, seconds) - SIZE * np.array(PLACES[shot.place], dtype=np.float32)
    centres = np.array([reading.centre for reading in readings], dtype=np.float32)
    x, y = (centres - motion)[found].mean(axis=0).tolist()
    return nearest_place((x, y))


def _distance(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))
