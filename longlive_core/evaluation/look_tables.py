"""Tables of what the looks at the films show: adherence, shapes, places, confusion, recall."""

from __future__ import annotations

from collections.abc import Sequence

from ..training.world import SHAPES
from .arm_films import ArmResult, FilmResult
from .arms import MAIN
from .bootstrap import Sums, estimate
from .measures import ATTRIBUTES, IDENTITY
from .scores import CHANCE, Column, Part, Table, carried, find, named, shape_share, share
from .scripts import GAPS, Group
from .windows import KINDS


def adherence(results: Sequence[ArmResult], title: str, group: Group, part: Part) -> Table:
    """The share of looks at a part that show each attribute, by arm."""
    rows = [
        (result.arm.name, tuple(share(result.group(group), name, part) for name in ATTRIBUTES))
        for result in results
        if result.group(group)
    ]
    chance = tuple(f"{100 * CHANCE[name]:.1f}" if name in IDENTITY else "" for name in ATTRIBUTES)
    rows = [*rows, ("chance", chance)] if rows else []
    return Table(title.partition(":")[0], title, tuple(Column(name) for name in ATTRIBUTES), tuple(rows))


def each_shape(results: Sequence[ArmResult], title: str, group: Group, part: Part) -> Table:
    """The share of looks at a part that show the hero's shape, by arm and shape."""
    rows = tuple(
        (result.arm.name, tuple(shape_share(result.group(group), shape, part) for shape in SHAPES))
        for result in results
        if result.group(group)
    )
    name = title.partition(":")[0]
    return Table(f"shapes {name}", f"shape right, {name}, by the shape", tuple(Column(shape) for shape in SHAPES), rows)


def places(results: Sequence[ArmResult]) -> Table:
    """Looks at the head of shots, at seams, in the middle of blocks and at the end of shots."""
    films, names = find(results, MAIN, "short"), ("background", "colour", "shape", "size")
    rows = [
        (f"{name}, {kind}", tuple(share(films, attribute, _at(part, kind)) for attribute in names))
        for name, part in (("named", named), ("carried", carried))
        for kind in KINDS
        if films
    ]
    return Table("places", f"places of looks, {MAIN}", tuple(Column(name) for name in names), tuple(rows))


def _at(part: Part, kind: str) -> Part:
    return lambda look: part(look) and look.kind == kind


def confusion(results: Sequence[ArmResult], title: str, group: Group, part: Part) -> Table:
    """Shares of the frames of films with each shape that show each shape or no hero."""
    films, name = find(results, MAIN, group), title.partition(":")[0]
    seen: tuple[str | None, ...] = (*SHAPES, None)
    rows = [
        (shape, tuple(estimate([_frames(film, other, part) for film in own]) for other in seen))
        for shape in SHAPES
        if (own := [film for film in films if film.case.film.hero.shape == shape])
    ]
    columns = tuple(Column(shape or "no hero") for shape in seen)
    return Table(f"confusion {name}", f"confusion of shapes in frames, {name}, {MAIN}", columns, tuple(rows))


def _frames(film: FilmResult, shape: str | None, part: Part) -> Sums:
    shapes = [seen for look in film.looks if part(look) for seen in look.shapes]
    return float(shapes.count(shape)), float(len(shapes))


def recall(results: Sequence[ArmResult]) -> Table:
    """Recall by the number of shots since the hero was described."""
    own = [(result.arm.name, films) for result in results if (films := result.group("gap"))]
    rows = [
        (
            str(gap),
            tuple(share(films, name, lambda look, gap=gap: look.shot == gap) for _, films in own for name in IDENTITY),
        )
        for gap in GAPS
        if own
    ]
    columns = tuple(Column(f"{name}, {arm}") for arm, _ in own for name in IDENTITY)
    return Table("recall", "recall by the number of shots since the hero was described", columns, tuple(rows))
