"""Targets of the embedded model, and how far its figures are from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..training.world import SHAPES
from .arm_films import ArmResult, FilmResult
from .arms import FIFTY_STEPS, MAIN, MEMORY_OFF, TRUTH, TWO_STEPS
from .bootstrap import Estimate, estimate
from .measures import IDENTITY
from .scores import (
    CHANCE,
    Cell,
    Column,
    Measure,
    Part,
    Table,
    Unit,
    carried,
    figure,
    find,
    late,
    look_sums,
    named,
    number,
    over_films,
    seam_and_beside,
    shape_share,
    share,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A limit of a figure in its unit.

    least: whether it is a lower limit. end: the end of the interval that is compared with it; the worse one, except for
    figures that only have to be no more than chance.
    """

    name: str
    limit: float
    figure: Estimate
    unit: Unit = "%"
    least: bool = True
    end: Literal["low", "high"] = "low"

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Figure, limit and verdict."""
        end = self.figure.low if self.end == "low" else self.figure.high
        met = end >= self.limit if self.least else end <= self.limit
        limit = f"{'≥' if self.least else '≤'} {number(self.limit, self.unit)}"
        gap = abs(end - self.limit)
        return figure(self.figure, self.unit), limit, "met" if met else f"missed by {number(gap, self.unit)}"


def targets(results: Sequence[ArmResult]) -> Iterator[Target]:
    """The targets of the embedded model whose figures were measured."""
    short, minute, off = find(results, MAIN, "short"), find(results, MAIN, "minute"), find(results, MEMORY_OFF, "short")
    for name in ("background", "pattern"):
        yield Target(name, 0.97, share(short, name, lambda _: True))
    for name in IDENTITY:
        yield Target(f"named {name}", 0.97, share(short, name, named))
    yield from (Target(f"named {shape}", 0.93, shape_share(short, shape, named)) for shape in SHAPES)
    yield Target("carried colour", 0.97, share(short, "colour", carried))
    yield Target("carried shape", 0.90, share(short, "shape", carried))
    yield from (Target(f"carried {shape}", 0.82, shape_share(short, shape, carried)) for shape in SHAPES)
    yield Target("colour after a minute", 0.95, share(minute, "colour", late))
    yield Target("shape after a minute", 0.85, share(minute, "shape", late))
    for name in IDENTITY:
        # At chance or below: without memory the hero is often missing.
        yield Target(
            f"memory off, carried {name}: at chance", CHANCE[name], share(off, name, carried), "%", False, "low"
        )
    for arm in (TWO_STEPS, "NVFP4 KV", "NVFP4 weights", FIFTY_STEPS):
        for name, part in (("named", named), ("carried", carried)):
            yield Target(f"{arm} − {MAIN}, {name} shape", -0.02, _difference(short, find(results, arm, "short"), part))
    yield Target("seam / beside", 1.05, over_films(short, seam_and_beside), "ratio", False, "high")
    truth = find(results, TRUTH, "short")
    yield Target("VAE, PSNR", 33, estimate([(film.psnr, 1) for film in truth if film.psnr is not None]), "dB")


def _difference(before: Sequence[FilmResult], after: Sequence[FilmResult], part: Part) -> Estimate:
    """The difference of the shares of looks that show the shape, over the films that both arms made."""
    measured = {film.case.seed: look_sums(film, _shape(part)) for film in before}
    pairs = [(measured[film.case.seed], look_sums(film, _shape(part))) for film in after if film.case.seed in measured]
    return estimate([(b[0] - a[0], a[1]) for a, b in pairs])


def _shape(part: Part) -> Measure:
    return lambda look: float(look.correct["shape"]) if part(look) else None


def target_table(results: Sequence[ArmResult]) -> Table:
    """The targets with their figures and verdicts."""
    rows = tuple((target.name, target.cells) for target in targets(results) if target.figure.films)
    columns = (Column("figure"), Column("target"), Column("verdict"))
    note = "The lower end of the interval is compared with a lower limit, the upper end with that of the seams."
    return Table("targets", f"targets, {MAIN}", columns, rows, note)
