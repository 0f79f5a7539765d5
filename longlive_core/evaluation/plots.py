"""Plots of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from PIL import Image

from .canvas import INK, PALETTE, Axes, Canvas
from .measures import ATTRIBUTES, IDENTITY
from .report import CHANCE, Report, Score

PER_CENT: Final = (0, 25, 50, 75, 100)
# Largest acceptable ratio of flicker at seams to flicker inside blocks.
FLICKER_TARGET: Final = 1.1


def plot_adherence(report: Report) -> Image.Image:
    """Plot scores per attribute: shot 1 per number of steps, then later shots with and without memory."""
    best, without = report.rows[0], report.rows[min(3, len(report.rows) - 1)]
    series: list[tuple[str, Mapping[str, Score]]] = [(f"shot 1, {best.steps} steps", best.named)]
    series += [(f"shot 1, {r.steps} steps", r.named) for r in report.rows[1:] if r.steps != best.steps]
    series += [(f"later shots, {row.name}", row.unnamed) for row in (best, without)]
    canvas = Canvas(900, 380)
    canvas.text((20, 14), "How often a look shows what was asked for", 17)
    canvas.legend((20, 54), [name for name, _ in series])
    axes = Axes(58, 98, 885, 340, (0, len(ATTRIBUTES)), (0, 100))
    canvas.grid(axes, PER_CENT, ".0f", "% of looks")
    _bars(canvas, axes, ATTRIBUTES, [[100 * scores[a].rate for a in ATTRIBUTES] for _, scores in series])
    for place, name in enumerate(ATTRIBUTES):
        if name in IDENTITY:
            level = 100 * CHANCE[name]
            canvas.dashes(axes.at(place + 0.04, level), axes.at(place + 0.96, level))
    canvas.text((885, 374), "dashed: guessing the hero", 12, "rs")
    return canvas.image()


def plot_identity(report: Report) -> Image.Image:
    """Plot accuracy of the hero's colour, shape and size over one minute, one line per mode."""
    rows = [row for row in report.rows if row.timeline]
    canvas = Canvas(900, 760)
    canvas.text((20, 14), f"The hero over one minute, named in shot 1 alone ({report.minute_films} films)", 17)
    canvas.legend((20, 54), [row.name for row in rows])
    for place, name in enumerate(IDENTITY):
        top = 98 + 215 * place
        axes = Axes(58, top, 885, top + 160, (0, 60), (0, 100))
        canvas.grid(axes, PER_CENT, ".0f", f"% of looks with the right {name}")
        level = 100 * CHANCE[name]
        canvas.dashes(axes.at(0, level), axes.at(60, level))
        for row, colour in zip(rows, PALETTE, strict=False):
            points = [axes.at(moment.seconds, 100 * moment.scores[name].rate) for moment in row.timeline]
            canvas.line(points, colour, 2)
            for point in points:
                canvas.dot(point, colour)
        canvas.x_ticks(axes, range(0, 61, 10), "seconds since the film began" if place == len(IDENTITY) - 1 else "")
    canvas.text((885, 754), "dashed: guessing the hero", 12, "rs")
    return canvas.image()


def plot_flicker(report: Report) -> Image.Image:
    """Plot frame differences across seams, relative to those at other boundaries and inside blocks."""
    ratios = [[row.flicker.over_boundaries for row in report.rows], [row.flicker.over_inside for row in report.rows]]
    highest = max([1.5, *(1.1 * value for values in ratios for value in values if value == value)])
    canvas = Canvas(900, 380)
    canvas.text((20, 14), "Do seams between blocks show?", 17)
    canvas.legend((20, 54), ["seam / other latent boundaries", "seam / all frames inside blocks"])
    axes = Axes(58, 98, 885, 340, (0, len(report.rows)), (0, highest))
    canvas.grid(axes, [0, 0.5, 1, *_halves(1.5, highest)], ".1f", "ratio of mean frame differences")
    _bars(canvas, axes, [row.name for row in report.rows], ratios)
    canvas.dashes(axes.at(0, FLICKER_TARGET), axes.at(len(report.rows), FLICKER_TARGET))
    canvas.text((885, 374), f"dashed: the target, {FLICKER_TARGET}; 1.0: seams are invisible", 12, "rs")
    return canvas.image()


def _bars(canvas: Canvas, axes: Axes, groups: Sequence[str], series: Sequence[Sequence[float]]) -> None:
    """Draw one group of bars per unit of x, with the group's name below and the values on top."""
    width = 0.8 / len(series)
    for place, group in enumerate(groups):
        for i, values in enumerate(series):
            value = values[place]
            left = place + 0.1 + i * width
            if value == value:
                corner = axes.at(left, min(value, axes.y_range[1]))
                canvas.bar(corner, axes.at(left + 0.9 * width, 0), PALETTE[i])
                # The value is inside the bar, where no dashed line crosses it, unless the bar is too short.
                tall = axes.bottom - corner[1] > 20
                spot = (axes.at(left + 0.45 * width, 0)[0], corner[1] + (4 if tall else -3))
                number_format = ".0f" if axes.y_range[1] >= 100 else ".2f"
                canvas.text(spot, format(value, number_format), 11, "ma" if tall else "ms", "white" if tall else INK)
        canvas.text((axes.at(place + 0.5, 0)[0], axes.bottom + 6), group, 13, "ma")
    canvas.line([(axes.left, axes.bottom), (axes.right, axes.bottom)])


def _halves(start: float, stop: float) -> list[float]:
    """Ticks from `start` to `stop` in steps of 0.5, or of whole numbers if these would be too many."""
    step = 0.5 if stop < 4 else max(1.0, round(stop / 6))
    count = int((stop - start) / step) + 1
    return [start + step * i for i in range(count)] if stop >= start else []
