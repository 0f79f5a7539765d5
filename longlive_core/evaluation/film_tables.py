"""Tables of films that are measured as a whole: seams, cuts, drift of a shot and over ten minutes, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..mini import Mini
from ..units import MB
from .arm_films import ArmResult, FilmResult
from .arms import MAIN, TRUTH
from .bootstrap import Estimate, Sums, estimate
from .formats import BF16, kv_bytes, weight_bytes
from .pixels import FilmPixels
from .scores import Cell, Column, Measure, Table, Unit, figure, over_films, over_looks, seam_and_beside, shot_drift
from .scripts import SHOT_BLOCKS


def seams(results: Sequence[ArmResult]) -> Table:
    """Steps at seams and beside them, and drift of shots."""
    sums: tuple[Callable[[FilmPixels], Sums | None], ...] = (
        lambda pixels: pixels.seam,
        lambda pixels: pixels.boundary,
        seam_and_beside,
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


def cuts(results: Sequence[ArmResult]) -> Table:
    """Precision and recall of the cuts that PySceneDetect finds."""
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


def one_shot(results: Sequence[ArmResult]) -> Table:
    """Errors and steps of one long shot, by block."""
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


def ten_minutes(results: Sequence[ArmResult]) -> Table:
    """Errors of colours by minute."""
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


def storage(results: Sequence[ArmResult], mini: Mini, compared: str) -> Table:
    """Sizes of weights and KV cache, and the difference that their formats make. compared: what PSNR compares with."""
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
    note = f"PSNR compares with the films of {compared}; {TRUTH}: with the rendered films."
    return Table("formats", "formats: sizes and difference", columns, tuple(rows), note)
