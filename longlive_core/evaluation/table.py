"""Results of evaluations in RESULTS.md and results.json: tables in Markdown, the same figures in JSON, and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final

from PIL import Image

from .bootstrap import LEVEL, RESAMPLES, SEED
from .pixels import FilmPixels
from .scores import Cell, Column, Table, Unit, figure
from .scripts import HELD_OUT, TRAINING_FILMS, TRAINING_SEED

RESULTS_FILE: Final = "RESULTS.md"
JSON_FILE: Final = "results.json"
MINI_SECTION: Final = "longlive eval mini"

# Figures of LongLive 2.0 5B as published: README and paper (arXiv 2605.18739). None of them is measured here.
PUBLISHED: Final[tuple[tuple[str, str], ...]] = (
    ("VBench total: bf16, NVFP4 at 4 steps, NVFP4 at 2 steps", "85.06, 84.51, 83.14"),
    ("VBench-Long, 60 s: subject consistency, NVFP4", "97.62"),
    ("VBench-Long, 60 s: background consistency, bf16", "97.00"),
    ("frames a second on a GB200, 1280x704: bf16, NVFP4 at 4 steps, NVFP4 at 2 steps", "24.8, 29.7, 45.7"),
)

HOW: Final = (
    "A look is at 16 frames: around a seam between two blocks, at the first or last frames of a shot, or in the middle "
    "of a block. The probe reads four of them; an attribute is right if more than half of these show it, and wrong if "
    "no hero is found. Shares are in %. In brackets: the 95 % interval of a bootstrap over films "
    f"({RESAMPLES} samples, seed {SEED}). It has no width where all films agree: of n films without a fault, up to "
    "about 3/n of all films may still have one."
)


def seeds_text(seed: int) -> str:
    """Which scripts are held out, and the seeds of an evaluation."""
    return (
        f"Scripts: seeds ({HELD_OUT}, group, index, part); hero, background, pattern and place of each shot occur "
        f"together in none of the first {TRAINING_FILMS} training films of seed {TRAINING_SEED}; shapes take turns. "
        f"Noise: seed {seed} + 500,000 · group + index."
    )


def markdown(title: str, tables: Sequence[Table], intro: Sequence[str]) -> str:
    """The tables in Markdown below a title and paragraphs."""
    parts = [f"## {title}", *intro]
    for table in tables:
        lines = [f"| {' | '.join((table.title, *(column.name for column in table.columns)))} |"]
        lines.append("|---" * (len(table.columns) + 1) + "|")
        for name, cells in table.rows:
            pairs = zip(table.columns, cells, strict=True)
            lines.append(f"| {' | '.join((name, *(_text(cell, column.unit) for column, cell in pairs)))} |")
        parts.append("\n".join(lines))
        if table.note:
            parts.append(table.note)
    return "\n\n".join(parts) + "\n"


def as_json(tables: Sequence[Table], facts: Mapping[str, Any]) -> str:
    """The tables in JSON: key of the table, row, column → figure or text. NaN and infinity become null."""
    values = {
        table.key: {
            name: {column.name: _value(cell) for column, cell in zip(table.columns, cells, strict=True)}
            for name, cells in table.rows
        }
        for table in tables
    }
    method = {"interval": LEVEL, "resamples": RESAMPLES, "bootstrap_seed": SEED}
    return json.dumps({**facts, **method, "tables": values}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_results(
    folder: Path, section: str, text: str, data: str, plots: Mapping[str, Image.Image] | None = None
) -> list[Path]:
    """Writes plots and JSON, and replaces a section of RESULTS.md. The rest of that file stays as it is.

    Returns the written files, RESULTS.md first. Raises OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"mini_{name}.png" for name in plots or {}]
    for file, picture in zip(files, (plots or {}).values(), strict=True):
        picture.save(file, optimize=True)
    (folder / JSON_FILE).write_text(data, "utf-8")
    pictures = "".join(f"\n![{name}](mini_{name}.png)\n" for name in plots or {})
    return [_replace_section(folder, section, text + pictures), folder / JSON_FILE, *files]


def film_table(pixels: FilmPixels) -> Table:
    """The measures of one film, beside the published figures of LongLive 2.0 5B, which measure other things."""

    def mean(sums: tuple[float, float] | None, unit: Unit = "ratio") -> str:
        if sums is None or not sums[1]:
            return "–"
        value = sums[0] / sums[1]
        return f"{100 * value:.1f} %" if unit == "%" else f"{value:.2f}"

    cuts = pixels.cuts
    measured = (
        ("step at seams within shots, levels of 255", mean(pixels.seam)),
        ("step at the latent boundaries beside", mean(pixels.boundary)),
        ("seam / beside", mean((2 * pixels.seam[0], pixels.boundary[0]))),
        ("SSIM at seams", mean(pixels.seam_ssim)),
        ("SSIM beside", mean(pixels.boundary_ssim)),
        ("colour drift of a shot, levels", mean(pixels.colour_drift)),
        ("contrast, last / first block of a shot", mean(pixels.contrast_drift)),
        ("cuts: precision", mean(cuts and (cuts.matched, cuts.found), "%")),
        ("cuts: recall", mean(cuts and (cuts.matched, cuts.asked), "%")),
    )
    rows = [(name, (value, "–")) for name, value in measured] + [(name, ("–", value)) for name, value in PUBLISHED]
    columns = (Column("this film"), Column("LongLive 2.0 5B, published"))
    return Table("film", "without a probe", columns, tuple(rows))


def _replace_section(folder: Path, section: str, text: str) -> Path:
    """Replaces the text between the two comments of a section in RESULTS.md, or appends the section."""
    file, begin, end = folder / RESULTS_FILE, f"<!-- {section} -->", f"<!-- end of {section} -->"
    before, found, rest = (file.read_text("utf-8") if file.exists() else "").partition(begin)
    after = rest.partition(end)[2].lstrip("\n") if found else ""
    parts = (before.rstrip("\n") + "\n" if before else "", f"{begin}\n{text}{end}\n", after)
    file.write_text("\n".join(part for part in parts if part), "utf-8")
    return file


def _text(cell: Cell, unit: Unit) -> str:
    return cell if isinstance(cell, str) else figure(cell, unit)


def _value(cell: Cell) -> object:
    if isinstance(cell, str):
        return cell
    numbers = {"value": cell.value, "low": cell.low, "high": cell.high}
    known = {name: number if isfinite(number) else None for name, number in numbers.items()}
    return {**known, "films": cell.films, "count": cell.count}


def mini_facts(model: str, films: int, seed: int, seconds: float) -> dict[str, Any]:
    """What results.json says of the run beside its tables."""
    return {"model": model, "films": films, "noise_seed": seed, "script_seed": HELD_OUT, "seconds": round(seconds)}
