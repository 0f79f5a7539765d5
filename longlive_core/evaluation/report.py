"""Figures of an evaluation, aggregated from samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..training.world import COLOURS, SHAPES, SIZES
from .measures import ATTRIBUTES, Sample

# Accuracy of guessing an attribute of the hero.
CHANCE: Final = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "size": 1 / len(SIZES)}
LAST_SECONDS: Final = 12.0
FIRST_SECONDS: Final = 12.0


@dataclass(frozen=True, slots=True)
class Score:
    """`right` of `count` windows show the requested attribute."""

    right: int
    count: int

    @property
    def rate(self) -> float:
        """Share in [0, 1]; NaN if `count` is 0."""
        return self.right / self.count if self.count else float("nan")

    def __str__(self) -> str:
        return f"{100 * self.rate:.0f}" if self.count else "–"


@dataclass(frozen=True, slots=True)
class Moment:
    """Scores of all minute films in an interval around `seconds`, including shots that name the hero."""

    seconds: float
    scores: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Drift:
    """Means over the first and over the last 12 s of minute films; NaN without samples.

    background_error, hero_error: distance of colours from those requested, in levels of 0…255. confidence: the probe's
    confidence in the shape.
    """

    background_error: tuple[float, float]
    hero_error: tuple[float, float]
    confidence: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SeamFlicker:
    """Mean frame difference across seams, relative to other latent boundaries and to all pairs inside blocks.

    A ratio of 1 means that seams are invisible. seams: number of measured seams.
    """

    over_boundaries: float
    over_inside: float
    seams: int


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one mode, with scores per attribute.

    named: shot 1 of short scripts. unnamed: their later shots. minute: the last 12 s of minute films. Scores count 0
    windows if the mode skips these films.
    """

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
    """Figures of all modes.

    scripts, minute_films: numbers of films. vae_psnr: in dB. seconds: duration of the evaluation.
    """

    rows: tuple[Row, ...]
    scripts: int
    minute_films: int
    vae_psnr: float
    seconds: float

    def row(self, name: str) -> Row:
        """Row by name. Raises KeyError if there is none."""
        return {row.name: row for row in self.rows}[name]


def make_row(name: str, steps: int, short: Iterable[Sample], minute: Iterable[Sample], interval: float) -> Row:
    """Aggregate samples; the timeline has one moment per `interval` seconds."""
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
        timeline=_timeline(minute, interval),
        flicker=seam_flicker((*short, *minute)),
        drift=_drift(early, late),
    )


def score(samples: Iterable[Sample]) -> dict[str, Score]:
    """Score of each attribute."""
    samples = tuple(samples)
    return {name: Score(sum(s.right[name] for s in samples), len(samples)) for name in ATTRIBUTES}


def seam_flicker(samples: Sequence[Sample]) -> SeamFlicker:
    """Ratios of mean differences; a mean of ratios would divide by almost 0 for still films."""
    seam, boundary, inside = (sum(getattr(s.flicker, name) for s in samples) for name in ("seam", "boundary", "inside"))
    return SeamFlicker(_ratio(seam, boundary), _ratio(seam, inside), len(samples))


def _timeline(samples: Sequence[Sample], interval: float) -> tuple[Moment, ...]:
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(int(sample.seconds / interval), []).append(sample)
    return tuple(Moment((index + 0.5) * interval, score(group)) for index, group in sorted(groups.items()))


def _drift(early: Sequence[Sample], late: Sequence[Sample]) -> Drift:
    def both(name: str) -> tuple[float, float]:
        return _mean(getattr(s, name) for s in early), _mean(getattr(s, name) for s in late)

    return Drift(both("background_error"), both("hero_error"), both("confidence"))


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
