"""Reports of an evaluation: Markdown tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Final

from .formats import FormatRow, format_table
from .measures import ATTRIBUTES, IDENTITY
from .plots import plot_adherence, plot_flicker, plot_identity
from .report import CHANCE, LAST_SECONDS, Report, Row

RESULTS_FILE: Final = "RESULTS.md"
SECTION: Final = "longlive eval mini"
FORMATS_SECTION: Final = "longlive eval mini --formats"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write the plots, and replace the section of RESULTS.md with the new tables.

    Returns the paths of all files, RESULTS.md first. Raises OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = {
        "mini_adherence.png": plot_adherence(report),
        "mini_identity.png": plot_identity(report),
        "mini_flicker.png": plot_flicker(report),
    }
    for name, picture in plots.items():
        picture.save(folder / name, optimize=True)
    pictures = "\n\n".join(f"![{Path(name).stem.removeprefix('mini_')}]({name})" for name in plots)
    return [_put_section(folder, SECTION, f"{markdown(report)}\n{pictures}"), *(folder / name for name in plots)]


def write_formats(rows: Sequence[FormatRow], folder: Path) -> Path:
    """Replace the table of formats in RESULTS.md. Raises OSError if the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    return _put_section(folder, FORMATS_SECTION, format_table(rows))


def _put_section(folder: Path, section: str, text: str) -> Path:
    """Replace a section of RESULTS.md, which two comments enclose, or append it; the rest stays unchanged."""
    file, begin, end = folder / RESULTS_FILE, f"<!-- {section} -->", f"<!-- end of {section} -->"
    before, found, rest = (file.read_text("utf-8") if file.exists() else "").partition(begin)
    after = rest.partition(end)[2].lstrip("\n") if found else ""
    parts = (before.rstrip("\n") + "\n" if before else "", f"{begin}\n{text}\n{end}\n", after)
    file.write_text("\n".join(part for part in parts if part), "utf-8")
    return file


def markdown(report: Report) -> str:
    """Markdown tables of the report, with a description of the measures."""
    steps = report.rows[0].steps
    lines = [
        "## LongLive Mini: what it does of what it is told",
        "",
        f"{report.scripts} held-out scripts of two or three shots and {report.minute_films} films of one minute, "
        f"{steps} steps unless said otherwise, in {report.seconds / 60:.1f} min. VAE: {report.vae_psnr:.1f} dB.",
        "A look is 16 frames around a seam between two blocks, of which four are read by the probe; an attribute is "
        "right where most of them show it, and a hero that is not found is wrong. Figures are % of looks.",
        "",
        *_scores(report, "Shot 1, the hero named", "named"),
        *_scores(report, "Later shots, the hero not named", "unnamed"),
        *_scores(report, f"Last {LAST_SECONDS:.0f} s of one minute, the hero not named since shot 1", "minute"),
        "| seams and drift | seam / other latent boundaries | seam / inside blocks | seams | wall error, levels | "
        "hero error, levels | confidence in shape |",
        "|---|---|---|---|---|---|---|",
        *(_flicker_line(row) for row in report.rows),
        "",
        "Flicker is the mean absolute difference of two frames; 1.00 says that seams cannot be told. Drift is from the "
        "first to the last 12 s of the minute: distance of the measured colour from the one asked for.",
        "",
    ]
    return "\n".join(lines)


def _scores(report: Report, title: str, part: str) -> list[str]:
    lines = [f"| {title} | {' | '.join(ATTRIBUTES)} | looks |", "|---" * (len(ATTRIBUTES) + 2) + "|"]
    for row in report.rows:
        scores = getattr(row, part)
        count = scores[ATTRIBUTES[0]].count
        if count:
            lines.append(f"| {row.name} | {' | '.join(str(scores[name]) for name in ATTRIBUTES)} | {count} |")
    chances = [f"{100 * CHANCE[name]:.0f}" if name in IDENTITY else "" for name in ATTRIBUTES]
    return [*lines, f"| *guessing* | {' | '.join(chances)} | |", ""]


def _flicker_line(row: Row) -> str:
    flicker, drift = row.flicker, row.drift
    changes = [
        f"{_number(a, number_format)} → {_number(b, number_format)}"
        for (a, b), number_format in (
            (drift.background_error, ".1f"),
            (drift.hero_error, ".1f"),
            (drift.confidence, ".2f"),
        )
    ]
    ratios = [_number(flicker.over_boundaries, ".2f"), _number(flicker.over_inside, ".2f")]
    return f"| {row.name} | {' | '.join(ratios)} | {flicker.seams} | {' | '.join(changes)} |"


def _number(value: float, number_format: str) -> str:
    return "–" if isnan(value) else format(value, number_format)
