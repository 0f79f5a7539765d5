"""Reports of evaluations in RESULTS.md: tables in Markdown, and plots beside the file."""

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
MINI_SECTION: Final = "longlive eval mini"
FORMATS_SECTION: Final = "longlive eval mini --formats"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes the plots, and replaces the table in RESULTS.md. The rest of that file stays as it is.

    Returns the written files, RESULTS.md first. Raises OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = {
        "adherence": plot_adherence(report),
        "identity": plot_identity(report),
        "flicker": plot_flicker(report),
    }
    files = [folder / f"mini_{name}.png" for name in plots]
    for file, picture in zip(files, plots.values(), strict=True):
        picture.save(file, optimize=True)
    pictures = "\n\n".join(f"![{name}](mini_{name}.png)" for name in plots)
    return [_replace_section(folder, MINI_SECTION, f"{markdown(report)}\n{pictures}"), *files]


def write_formats(rows: Sequence[FormatRow], folder: Path) -> Path:
    """Replaces the table of formats in RESULTS.md and returns its path. Raises OSError as `write_report` does."""
    folder.mkdir(parents=True, exist_ok=True)
    return _replace_section(folder, FORMATS_SECTION, format_table(rows))


def _replace_section(folder: Path, section: str, text: str) -> Path:
    """Replaces the text between the two comments of a section in RESULTS.md, or appends the section."""
    file, begin, end = folder / RESULTS_FILE, f"<!-- {section} -->", f"<!-- end of {section} -->"
    before, found, rest = (file.read_text("utf-8") if file.exists() else "").partition(begin)
    after = rest.partition(end)[2].lstrip("\n") if found else ""
    parts = (before.rstrip("\n") + "\n" if before else "", f"{begin}\n{text}\n{end}\n", after)
    file.write_text("\n".join(part for part in parts if part), "utf-8")
    return file


def markdown(report: Report) -> str:
    """The tables of a report in Markdown, with how the figures were counted."""
    steps = report.rows[0].steps
    lines = [
        "## LongLive Mini: agreement with the script",
        "",
        f"{report.scripts} held-out scripts of two or three shots and {report.minute_films} films of one minute, "
        f"{steps} steps unless the row differs, in {report.seconds / 60:.1f} min. VAE: {report.vae_psnr:.1f} dB.",
        "A window is 16 frames around a seam between two blocks. The probe reads four of them; an attribute is correct "
        "if more than half of these show it, and wrong if no hero is found. Figures are % of windows.",
        "",
        *_scores(report, "Shot 1, the hero described", "named"),
        *_scores(report, "Later shots, the hero not described", "unnamed"),
        *_scores(report, f"Last {LAST_SECONDS:.0f} s of one minute, the hero described in shot 1 only", "minute"),
        "| seams and drift | seam / other latent boundaries | seam / inside blocks | seams | "
        "background error, levels | hero error, levels | confidence in shape |",
        "|---|---|---|---|---|---|---|",
        *(_flicker_line(row) for row in report.rows),
        "",
        "The first two columns are ratios of flicker, the mean absolute difference of consecutive frames; 1.00 means "
        "that a seam is like any other place. Errors and confidence are means over the first and the last 12 s of the "
        "minute; an error is the distance of the measured colour from the expected one.",
        "",
    ]
    return "\n".join(lines)


def _scores(report: Report, title: str, part: str) -> list[str]:
    lines = [f"| {title} | {' | '.join(ATTRIBUTES)} | windows |", "|---" * (len(ATTRIBUTES) + 2) + "|"]
    for row in report.rows:
        scores = getattr(row, part)
        count = scores[ATTRIBUTES[0]].count
        if count:
            lines.append(f"| {row.name} | {' | '.join(str(scores[name]) for name in ATTRIBUTES)} | {count} |")
    chances = [f"{100 * CHANCE[name]:.0f}" if name in IDENTITY else "" for name in ATTRIBUTES]
    return [*lines, f"| *chance* | {' | '.join(chances)} | |", ""]


def _flicker_line(row: Row) -> str:
    flicker, drift = row.flicker, row.drift
    changes = [
        f"{_number(a, spec)} → {_number(b, spec)}"
        for (a, b), spec in ((drift.background, ".1f"), (drift.hero, ".1f"), (drift.confidence, ".2f"))
    ]
    ratios = [_number(flicker.over_boundaries, ".2f"), _number(flicker.over_inside, ".2f")]
    return f"| {row.name} | {' | '.join(ratios)} | {flicker.seams} | {' | '.join(changes)} |"


def _number(value: float, spec: str) -> str:
    return "–" if isnan(value) else format(value, spec)
