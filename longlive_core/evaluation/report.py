"""Figures of an evaluation: scores, flicker and drift of each configuration, counted from windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..training.world import COLOURS, SHAPES, SIZES
from .measures import ATTRIBUTES, WindowScore

# The score of a hero that is guessed at random.
CHANCE: Final = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "size": 1 / len(SIZES)}
FIRST_SECONDS: Final = 12.0
LAST_SECONDS: Final = 12.0


@dataclass(frozen=True, slots=True)
class Score:
    """Number of correct windows, of `count` windows."""

    correct: int
    count: int

    @property
    def rate(self) -> float:
        """Share of correct windows in [0, 1]; NaN if there are none."""
        return self.correct / self.count if self.count else float("nan")

    def __str__(self) -> str:
        return f"{100 * self.rate:.0f}" if self.count else "–"


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """Scores of all minute films in one interval of time, whose middle is at `seconds`; shot 1 is included."""

    seconds: float
    scores: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Drift:
    """Change from the first to the last 12 s of minute films, as pairs (first, last); NaN without windows.

    background, hero: mean distance in levels from the expected colour. confidence: of the probe in the hero's shape.
    """

    background: tuple[float, float]
    hero: tuple[float, float]
    confidence: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SeamFlicker:
    """Mean flicker at `seams` seams, as ratios: to other boundaries of latent frames, and to all pairs within blocks.

    A ratio of 1 means that a seam is like any other place.
    """

    over_boundaries: float
    over_inside: float
    seams: int


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one configuration. Scores are per attribute.

    named: scores of shot 1 of short scripts. unnamed: of their later shots. minute: of the last 12 s of minute films.
    A group without films has scores of 0 windows.
    """

    name: str
    steps: int
    named: Mapping[str, Score]
    unnamed: Mapping[str, Score]
    minute: Mapping[str, Score]
    timeline: tuple[TimelinePoint, ...]
    flicker: SeamFlicker
    drift: Drift


@dataclass(frozen=True, slots=True)
class Report:
    """Rows of an evaluation over `scripts` short scripts and `minute_films` films of one minute.

    vae_psnr: in dB, of frames of the short scripts. seconds: duration of the evaluation.
    """

    rows: tuple[Row, ...]
    scripts: int
    minute_films: int
    vae_psnr: float
    seconds: float


def make_row(
    name: str, steps: int, short: Iterable[WindowScore], minute: Iterable[WindowScore], interval: float
) -> Row:
    """Counts windows of short scripts and of minute films. interval: seconds between points of the timeline."""
    short, minute = tuple(short), tuple(minute)
    end = max((window.seconds for window in minute), default=0.0)
    late = [window for window in minute if window.shot > 0 and window.seconds > end - LAST_SECONDS]
    early = [window for window in minute if window.seconds < FIRST_SECONDS]
    return Row(
        name,
        steps,
        named=attribute_scores(window for window in short if window.shot == 0),
        unnamed=attribute_scores(window for window in short if window.shot > 0),
        minute=attribute_scores(late),
        timeline=_timeline(minute, interval),
        flicker=seam_flicker((*short, *minute)),
        drift=_drift(early, late),
    )


def attribute_scores(windows: Iterable[WindowScore]) -> dict[str, Score]:
    """Score of each attribute."""
    windows = tuple(windows)
    return {name: Score(sum(window.correct[name] for window in windows), len(windows)) for name in ATTRIBUTES}


def seam_flicker(windows: Sequence[WindowScore]) -> SeamFlicker:
    """Flicker at the seams of windows.

    The figures are ratios of sums and not means of ratios, because a still film has a divisor of almost zero.
    """
    seam, boundary, inside = (
        sum(getattr(window.flicker, name) for window in windows) for name in ("seam", "boundary", "inside")
    )
    return SeamFlicker(_ratio(seam, boundary), _ratio(seam, inside), len(windows))


def _timeline(windows: Sequence[WindowScore], interval: float) -> tuple[TimelinePoint, ...]:
    groups: dict[int, list[WindowScore]] = {}
    for window in windows:
        groups.setdefault(int(window.seconds / interval), []).append(window)
    return tuple(
        TimelinePoint((index + 0.5) * interval, attribute_scores(group)) for index, group in sorted(groups.items())
    )


def _drift(early: Sequence[WindowScore], late: Sequence[WindowScore]) -> Drift:
    def means(name: str) -> tuple[float, float]:
        return _mean(getattr(window, name) for window in early), _mean(getattr(window, name) for window in late)

    return Drift(means("background_error"), means("hero_error"), means("confidence"))


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
