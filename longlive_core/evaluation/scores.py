"""Scores of an evaluation: shares and means with 95 % intervals, over looks and over films; the form of its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ..training.world import COLOURS, SHAPES, SIZES
from .arm_films import ArmResult, FilmResult
from .bootstrap import Estimate, Sums, estimate
from .measures import Look
from .pixels import FilmPixels
from .scripts import SHOT_BLOCKS, Group

Unit = Literal["%", "levels", "ratio", "dB", "MB"]
Cell = Estimate | str
Measure = Callable[[Look], float | None]
Part = Callable[[Look], bool]

# The score of a hero that is guessed at random.
CHANCE: Final = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "size": 1 / len(SIZES)}
LAST_SECONDS: Final = 48.0  # the last 12 s of a minute begin here
# Blocks of a long shot that are compared for drift. The first one is left out, because nothing is in memory then.
EARLY, LATE = range(1, 10), range(SHOT_BLOCKS - 10, SHOT_BLOCKS)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table and the unit of its figures; shares are in [0, 1] and shown in %."""

    name: str
    unit: Unit = "%"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: rows of a name and one cell for each column. key: its name in the JSON file. note: text below it."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""


def named(look: Look) -> bool:
    """Whether the look is at a shot whose caption describes the hero."""
    return look.shot == 0


def carried(look: Look) -> bool:
    """Whether the look is at a shot whose caption does not describe the hero."""
    return look.shot > 0


def late(look: Look) -> bool:
    """Whether the look is at the last 12 s of a minute, at a shot whose caption does not describe the hero."""
    return carried(look) and look.seconds > LAST_SECONDS


PARTS: Final[tuple[tuple[str, Group, Part], ...]] = (
    ("named: shot 1, whose caption describes the hero", "short", named),
    ("carried: later shots, whose captions do not", "short", carried),
    ("after a minute: its last 12 s, the hero described in shot 1 only", "minute", late),
)


def over_looks(films: Iterable[FilmResult], measure: Measure) -> Estimate:
    """The mean of a measure over looks; looks of which it is None are left out."""
    return estimate([look_sums(film, measure) for film in films])


def share(films: Iterable[FilmResult], attribute: str, part: Part) -> Estimate:
    """The share of the looks of a part that show the attribute."""
    return over_looks(films, lambda look: float(look.correct[attribute]) if part(look) else None)


def shape_share(films: Iterable[FilmResult], shape: str, part: Part) -> Estimate:
    """The share of looks at a part that show the shape, over the films whose hero has it."""
    return share((film for film in films if film.case.film.hero.shape == shape), "shape", part)


def over_films(films: Iterable[FilmResult], sums: Callable[[FilmPixels], Sums | None]) -> Estimate:
    """The ratio of two sums over films that were measured as a whole."""
    measured = (sums(film.pixels) for film in films if film.pixels is not None)
    return estimate([pair for pair in measured if pair is not None])


def shot_drift(films: Iterable[FilmResult], measure: Measure) -> Estimate:
    """A measure in blocks 21 to 30 of one shot, divided by that in blocks 2 to 10."""

    def sums(film: FilmResult) -> Sums:
        (a, m), (b, n) = (
            look_sums(film, lambda look, blocks=blocks: measure(look) if look.block in blocks else None)
            for blocks in (LATE, EARLY)
        )
        return a / max(m, 1), b / max(n, 1)

    return estimate([sums(film) for film in films])


def find(results: Iterable[ArmResult], arm: str, group: Group) -> tuple[FilmResult, ...]:
    """The films of a group in an arm; none if it was not evaluated."""
    return tuple(film for result in results if result.arm.name == arm for film in result.group(group))


def seam_and_beside(pixels: FilmPixels) -> Sums:
    """The step at seams and at the boundaries beside, of which there are two for each seam."""
    return pixels.seam[0], pixels.boundary[0] / 2


def look_sums(film: FilmResult, measure: Measure) -> Sums:
    """The sum and the number of the values of a measure in a film."""
    values = [value for look in film.looks if (value := measure(look)) is not None]
    return float(sum(values)), float(len(values))


def figure(value: Estimate, unit: Unit) -> str:
    """A figure with its interval, as in '97 (94 to 99)'; a dash without films."""
    if not value.films:
        return "–"
    return f"{number(value.value, unit)} ({number(value.low, unit)} to {number(value.high, unit)})"


def number(value: float, unit: Unit) -> str:
    """A figure in its unit, without the sign of the unit."""
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.1f}" if unit == "dB" else f"{value:.2f}"
