"""The figures of one evaluation, and the table they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..training.world import COLOURS, SHAPES, SIZES
from .measures import ATTRIBUTES, Sample

# What guessing gives for an attribute of the hero.
CHANCE: Final = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "size": 1 / len(SIZES)}
LAST_SECONDS: Final = 12.0
FIRST_SECONDS: Final = 12.0


@dataclass(frozen=True, slots=True)
class Score:
    """`right` of `count`."""

    right: int
    count: int

    @property
    def rate(self) -> float:
        """Share in [0, 1]; NaN for nothing counted."""
        return self.right / self.count if self.count else float("nan")

    def __str__(self) -> str:
        return f"{100 * self.rate:.0f}" if self.count else "–"


@dataclass(frozen=True, slots=True)
class Moment:
    """Scores of all minute films in a stretch of time around `seconds`, shots that name the hero included."""

    seconds: float
    scores: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Drift:
    """What changes from the first to the last 12 s of minute films: mean distance in levels of wall and hero from the
    colours asked for, and the probe's confidence in the shape. NaN where nothing was counted."""

    wall: tuple[float, float]
    paint: tuple[float, float]
    confidence: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SeamFlicker:
    """Mean step between frames across a seam, over that across other latent boundaries and over that inside blocks.

    1 means that seams cannot be told; `seams` were measured.
    """

    over_boundaries: float
    over_inside: float
    seams: int


@dataclass(frozen=True, slots=True)
class Row:
    """One way to remember. Scores are per attribute, of windows: `named` in shot 1 of short scripts, `unnamed` in
    their later shots, `minute` in the last 12 s of minute films; empty scores where a row left films out."""

    name: str
    steps: int
    named: Mapping[str, Score]
    unnamed: Mapping[str, Score]
    minute: Mapping[str, Score]
    timeline: tuple[Moment, ...]
    flicker: SeamFlicker
    drift: Drift


@dataclass(frozen=True, slots=True)
class Report:
    """All rows, of `scripts` short scripts and `minute_films`; `vae_psnr` in dB over the frames of short scripts."""

    rows: tuple[Row, ...]
    scripts: int
    minute_films: int
    vae_psnr: float
    seconds: float

    def row(self, name: str) -> Row:
        """The row of this name. Raises KeyError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)


def make_row(name: str, steps: int, short: Iterable[Sample], minute: Iterable[Sample], stretch: float) -> Row:
    """Counts samples; the timeline has one moment per `stretch` seconds."""
    short, minute = tuple(short), tuple(minute)
    end = max((sample.seconds for sample in minute), default=0.0)
    late = [s for s in minute if s.shot > 0 and s.seconds > end - LAST_SECONDS]
    early = [s for s in minute if s.seconds < FIRST_SECONDS]
    return Row(
        name,
        steps,
        named=score(s for s in short if s.shot == 0),
        unnamed=score(s for s in short if s.shot > 0),
        minute=score(late),
        timeline=_timeline(minute, stretch),
        flicker=seam_flicker((*short, *minute)),
        drift=_drift(early, late),
    )


def score(samples: Iterable[Sample]) -> dict[str, Score]:
    """Score per attribute."""
    samples = tuple(samples)
    return {name: Score(sum(s.right[name] for s in samples), len(samples)) for name in ATTRIBUTES}


def seam_flicker(samples: Sequence[Sample]) -> SeamFlicker:
    """Ratios of means, not means of ratios: a film that stands still has next to nothing to divide by."""
    seam, boundary, inside = (sum(getattr(s.flicker, name) for s in samples) for name in ("seam", "boundary", "inside"))
    return SeamFlicker(_ratio(seam, boundary), _ratio(seam, inside), len(samples))


def _timeline(samples: Sequence[Sample], stretch: float) -> tuple[Moment, ...]:
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(int(sample.seconds / stretch), []).append(sample)
    return tuple(Moment((index + 0.5) * stretch, score(group)) for index, group in sorted(groups.items()))


def _drift(early: Sequence[Sample], late: Sequence[Sample]) -> Drift:
    def both(name: str) -> tuple[float, float]:
        return _mean(getattr(s, name) for s in early), _mean(getattr(s, name) for s in late)

    return Drift(both("background_error"), both("hero_error"), both("confidence"))


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
