"""Tables of an evaluation: figures with 95 % intervals, counted from the looks at the films of each arm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ..mini import Mini
from ..training.world import COLOURS, SHAPES, SIZES
from ..units import MB
from .arms import FIFTY_STEPS, MAIN, MEMORY_OFF, TRUTH, TWO_STEPS, ArmResult, FilmResult
from .bootstrap import Estimate, Sums, estimate
from .formats import BF16, kv_bytes, weight_bytes
from .measures import ATTRIBUTES, IDENTITY, Look
from .pixels import FilmPixels
from .scripts import GAPS, SHOT_BLOCKS, Group
from .windows import KINDS

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
    return estimate([_look_sums(film, measure) for film in films])


def share(films: Iterable[FilmResult], attribute: str, part: Part) -> Estimate:
    """The share of the looks of a part that show the attribute."""
    return over_looks(films, lambda look: float(look.correct[attribute]) if part(look) else None)


def over_films(films: Iterable[FilmResult], sums: Callable[[FilmPixels], Sums | None]) -> Estimate:
    """The ratio of two sums over films that were measured as a whole."""
    measured = (sums(film.pixels) for film in films if film.pixels is not None)
    return estimate([pair for pair in measured if pair is not None])


def shot_drift(films: Iterable[FilmResult], measure: Measure) -> Estimate:
    """A measure in blocks 21 to 30 of one shot, divided by that in blocks 2 to 10."""

    def sums(film: FilmResult) -> Sums:
        (a, m), (b, n) = (
            _look_sums(film, lambda look, blocks=blocks: measure(look) if look.block in blocks else None)
            for blocks in (LATE, EARLY)
        )
        return a / max(m, 1), b / max(n, 1)

    return estimate([sums(film) for film in films])


def make_tables(results: Sequence[ArmResult], mini: Mini) -> tuple[Table, ...]:
    """The tables of an evaluation; those without a figure are left out."""
    tables = [
        _targets(results),
        *(_adherence(results, *part) for part in PARTS),
        *(_each_shape(results, name, group, part) for name, group, part in PARTS),
        _places(results),
        *(_confusion(results, name, group, part) for name, group, part in PARTS),
        _recall(results),
        _seams(results),
        _cuts(results),
        _one_shot(results),
        _ten_minutes(results),
        _storage(results, mini),
    ]
    return tuple(table for table in tables if table.rows)


def find(results: Iterable[ArmResult], arm: str, group: Group) -> tuple[FilmResult, ...]:
    """The films of a group in an arm; none if it was not evaluated."""
    return tuple(film for result in results if result.arm.name == arm for film in result.group(group))


def _adherence(results: Sequence[ArmResult], title: str, group: Group, part: Part) -> Table:
    rows = [
        (result.arm.name, tuple(share(result.group(group), name, part) for name in ATTRIBUTES))
        for result in results
        if result.group(group)
    ]
    chance = tuple(f"{100 * CHANCE[name]:.1f}" if name in IDENTITY else "" for name in ATTRIBUTES)
    rows = [*rows, ("chance", chance)] if rows else []
    return Table(title.partition(":")[0], title, tuple(Column(name) for name in ATTRIBUTES), tuple(rows))


def _each_shape(results: Sequence[ArmResult], title: str, group: Group, part: Part) -> Table:
    rows = tuple(
        (result.arm.name, tuple(_shape_share(result.group(group), shape, part) for shape in SHAPES))
        for result in results
        if result.group(group)
    )
    name = title.partition(":")[0]
    return Table(f"shapes {name}", f"shape right, {name}, by the shape", tuple(Column(shape) for shape in SHAPES), rows)


def _shape_share(films: Iterable[FilmResult], shape: str, part: Part) -> Estimate:
    return share((film for film in films if film.case.film.hero.shape == shape), "shape", part)


def _places(results: Sequence[ArmResult]) -> Table:
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


def _confusion(results: Sequence[ArmResult], title: str, group: Group, part: Part) -> Table:
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


def _recall(results: Sequence[ArmResult]) -> Table:
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


def _seams(results: Sequence[ArmResult]) -> Table:
    sums: tuple[Callable[[FilmPixels], Sums | None], ...] = (
        lambda pixels: pixels.seam,
        lambda pixels: pixels.boundary,
        _seam_and_beside,
        lambda pixels: pixels.seam_ssim,
        lambda pixels: pixels.boundary_ssim,
        lambda pixels: pixels.colour_drift,
        lambda pixels: pixels.contrast_drift,
    )
    rows = [(arm, tuple(over_films(films, pair) for pair in sums)) for arm, films in _measured(results)]
    columns = (
        Column("step at seams", "levels"),
        Column("step at the boundaries beside", "levels"),
        Column("seam / beside", "ratio"),
        Column("SSIM at seams", "ratio"),
        Column("SSIM beside", "ratio"),
        Column("colour drift of a shot", "levels"),
        Column("contrast, last / first block of a shot", "ratio"),
    )
    note = "The first three columns are mean absolute differences of consecutive frames in levels of 255."
    return Table("seams", "seams and drift without a probe", columns, tuple(rows), note)


def _cuts(results: Sequence[ArmResult]) -> Table:
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for arm, films in _measured(results):
        precision = over_films(films, lambda pixels: pixels.cuts and (pixels.cuts.matched, pixels.cuts.found))
        recall = over_films(films, lambda pixels: pixels.cuts and (pixels.cuts.matched, pixels.cuts.asked))
        if recall.films:
            rows.append((arm, (precision, recall, f"{recall.count:.0f}")))
    columns = (Column("precision"), Column("recall"), Column("cuts in the scripts"))
    return Table("cuts", "cuts found by PySceneDetect, compared with the script", columns, tuple(rows))


def _measured(results: Sequence[ArmResult]) -> Iterator[tuple[str, tuple[FilmResult, ...]]]:
    """Each arm whose short films were measured as a whole, and these films."""
    for result in results:
        films = result.group("short")
        if any(film.pixels for film in films):
            yield result.arm.name, films


def _seam_and_beside(pixels: FilmPixels) -> Sums:
    """The step at seams and at the boundaries beside, of which there are two for each seam."""
    return pixels.seam[0], pixels.boundary[0] / 2


def _one_shot(results: Sequence[ArmResult]) -> Table:
    own = [(result.arm.name, films) for result in results if (films := result.group("shot"))]
    measures: tuple[tuple[str, Unit, Measure], ...] = (
        ("wall", "levels", lambda look: look.wall_difference),
        ("hero", "levels", lambda look: look.hero_difference),
        ("step at the seam before", "levels", lambda look: look.flicker and look.flicker.seam),
        ("step beside it", "levels", lambda look: look.flicker and look.flicker.boundary),
        ("shape", "%", lambda look: float(look.correct["shape"])),
    )

    def cells(measured: Callable[[Sequence[FilmResult], Measure], Estimate]) -> tuple[Cell, ...]:
        return tuple(measured(films, measure) for _, films in own for _, _, measure in measures)

    def at(block: int) -> Callable[[Sequence[FilmResult], Measure], Estimate]:
        return lambda films, measure: over_looks(films, lambda k: measure(k) if k.block == block else None)

    rows = [(str(block + 1), cells(at(block))) for block in range(1, SHOT_BLOCKS) if own]
    columns = tuple(Column(f"{name}, {arm}", unit) for arm, _ in own for name, unit, _ in measures)
    note = "Wall and hero: mean absolute difference from the rendered film."
    if own:
        drifts = [
            f"{name} {arm} {figure(shot_drift(films, measure), 'ratio')}"
            for arm, films in own
            for name, _, measure in measures[:3]
        ]
        note += f" Mean of blocks 21 to 30 divided by that of blocks 2 to 10: {'; '.join(drifts)}."
    return Table("one shot", f"one shot of {SHOT_BLOCKS} blocks, by block", columns, tuple(rows), note)


def _ten_minutes(results: Sequence[ArmResult]) -> Table:
    own = [(result.arm.name, films) for result in results if (films := result.group("long"))]
    measures: tuple[tuple[str, Unit, Measure], ...] = (
        ("wall's colour", "levels", lambda look: look.background_error),
        ("hero's colour", "levels", lambda look: look.hero_error),
        ("colour right", "%", lambda look: float(look.correct["colour"])),
        ("shape right", "%", lambda look: float(look.correct["shape"])),
    )

    def during(minute: int, measure: Measure) -> Measure:
        return lambda look: measure(look) if int(look.seconds / 60) == minute else None

    rows = [
        (str(minute + 1), tuple(over_looks(films, during(minute, m)) for _, films in own for _, _, m in measures))
        for minute in range(10)
        if own
    ]
    columns = tuple(Column(f"{name}, {arm}", unit) for arm, _ in own for name, unit, _ in measures)
    note = "Colours: distance of the measured colour from the expected one. The bootstrap draws films, not looks."
    return Table("ten minutes", "colour drift over ten minutes, by minute", columns, tuple(rows), note)


def _storage(results: Sequence[ArmResult], mini: Mini) -> Table:
    rows = [
        (
            result.arm.name,
            (
                f"{weight_bytes(mini, result.arm.storage) / MB:.2f}",
                f"{kv_bytes(mini, result.arm.storage) / MB:.2f}",
                estimate([(film.psnr, 1) for film in result.films if film.psnr is not None]),
            ),
        )
        for result in results
        if result.arm.name in (MAIN, TRUTH) or result.arm.storage != BF16
    ]
    columns = (Column("weights", "MB"), Column("KV cache", "MB"), Column("PSNR", "dB"))
    note = f"PSNR compares with the films of the first arm; {TRUTH}: with the rendered films."
    return Table("formats", "formats: sizes and difference", columns, tuple(rows), note)


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
        limit = f"{'≥' if self.least else '≤'} {_number(self.limit, self.unit)}"
        gap = abs(end - self.limit)
        return figure(self.figure, self.unit), limit, "met" if met else f"missed by {_number(gap, self.unit)}"


def targets(results: Sequence[ArmResult]) -> Iterator[Target]:
    """The targets of the embedded model whose figures were measured."""
    short, minute, off = find(results, MAIN, "short"), find(results, MAIN, "minute"), find(results, MEMORY_OFF, "short")
    for name in ("background", "pattern"):
        yield Target(name, 0.97, share(short, name, lambda _: True))
    for name in IDENTITY:
        yield Target(f"named {name}", 0.97, share(short, name, named))
    yield from (Target(f"named {shape}", 0.93, _shape_share(short, shape, named)) for shape in SHAPES)
    yield Target("carried colour", 0.97, share(short, "colour", carried))
    yield Target("carried shape", 0.90, share(short, "shape", carried))
    yield from (Target(f"carried {shape}", 0.82, _shape_share(short, shape, carried)) for shape in SHAPES)
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
    yield Target("seam / beside", 1.05, over_films(short, _seam_and_beside), "ratio", False, "high")
    truth = find(results, TRUTH, "short")
    yield Target("VAE, PSNR", 33, estimate([(film.psnr, 1) for film in truth if film.psnr is not None]), "dB")


def _difference(before: Sequence[FilmResult], after: Sequence[FilmResult], part: Part) -> Estimate:
    """The difference of the shares of looks that show the shape, over the films that both arms made."""
    measured = {film.case.seed: _look_sums(film, _shape(part)) for film in before}
    pairs = [(measured[film.case.seed], _look_sums(film, _shape(part))) for film in after if film.case.seed in measured]
    return estimate([(b[0] - a[0], a[1]) for a, b in pairs])


def _shape(part: Part) -> Measure:
    return lambda look: float(look.correct["shape"]) if part(look) else None


def _targets(results: Sequence[ArmResult]) -> Table:
    rows = tuple((target.name, target.cells) for target in targets(results) if target.figure.films)
    columns = (Column("figure"), Column("target"), Column("verdict"))
    note = "The lower end of the interval is compared with a lower limit, the upper end with that of the seams."
    return Table("targets", f"targets, {MAIN}", columns, rows, note)


def _look_sums(film: FilmResult, measure: Measure) -> Sums:
    values = [value for look in film.looks if (value := measure(look)) is not None]
    return float(sum(values)), float(len(values))


def figure(value: Estimate, unit: Unit) -> str:
    """A figure with its interval, as in '97 (94 to 99)'; a dash without films."""
    if not value.films:
        return "–"
    return f"{_number(value.value, unit)} ({_number(value.low, unit)} to {_number(value.high, unit)})"


def _number(value: float, unit: Unit) -> str:
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.1f}" if unit == "dB" else f"{value:.2f}"
