"""Plots of an evaluation report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from PIL import Image

from ..video.canvas import INK, PALETTE, Axes, Canvas
from .measures import ATTRIBUTES, IDENTITY
from .report import CHANCE, Report, Score

PER_CENT: Final = (0, 25, 50, 75, 100)
# Flicker at seams may be this many times the flicker at other boundaries of latent frames.
FLICKER_TARGET: Final = 1.1


def plot_adherence(report: Report) -> Image.Image:
    """Bars for each attribute: shot 1 for each number of steps, then later shots with all sinks and without memory."""
    best, without = report.rows[0], report.rows[min(3, len(report.rows) - 1)]
    series: list[tuple[str, Mapping[str, Score]]] = [(f"shot 1, {best.steps} steps", best.named)]
    series += [(f"shot 1, {r.steps} steps", r.named) for r in report.rows[1:] if r.steps != best.steps]
    series += [(f"later shots, {row.name}", row.unnamed) for row in (best, without)]
    canvas = Canvas(900, 380)
    canvas.text((20, 14), "Share of windows that show what was asked for", 17)
    canvas.legend((20, 54), [name for name, _ in series])
    axes = Axes(58, 98, 885, 340, (0, len(ATTRIBUTES)), (0, 100))
    canvas.grid(axes, PER_CENT, ".0f", "% of windows")
    _bars(canvas, axes, ATTRIBUTES, [[100 * scores[a].rate for a in ATTRIBUTES] for _, scores in series])
    for place, name in enumerate(ATTRIBUTES):
        if name in IDENTITY:
            level = 100 * CHANCE[name]
            canvas.dashes(axes.to_pixels(place + 0.04, level), axes.to_pixels(place + 0.96, level))
    canvas.text((885, 374), "dashed: the hero guessed at random", 12, "rs")
    return canvas.image()


def plot_identity(report: Report) -> Image.Image:
    """Colour, shape and size of the hero over a minute, with one line for each row that has minute films."""
    rows = [row for row in report.rows if row.timeline]
    canvas = Canvas(900, 760)
    canvas.text((20, 14), f"The hero over one minute, described in shot 1 only ({report.minute_films} films)", 17)
    canvas.legend((20, 54), [row.name for row in rows])
    for place, name in enumerate(IDENTITY):
        top = 98 + 215 * place
        axes = Axes(58, top, 885, top + 160, (0, 60), (0, 100))
        canvas.grid(axes, PER_CENT, ".0f", f"% of windows with the correct {name}")
        level = 100 * CHANCE[name]
        canvas.dashes(axes.to_pixels(0, level), axes.to_pixels(60, level))
        for row, colour in zip(rows, PALETTE, strict=False):
            points = [axes.to_pixels(point.seconds, 100 * point.scores[name].rate) for point in row.timeline]
            canvas.line(points, colour, 2)
            for point in points:
                canvas.dot(point, colour)
        canvas.x_ticks(axes, range(0, 61, 10), "seconds since the film began" if place == len(IDENTITY) - 1 else "")
    canvas.text((885, 754), "dashed: the hero guessed at random", 12, "rs")
    return canvas.image()


def plot_flicker(report: Report) -> Image.Image:
    """Flicker at seams, as a ratio to the flicker elsewhere."""
    ratios = [[row.flicker.over_boundaries for row in report.rows], [row.flicker.over_inside for row in report.rows]]
    highest = max([1.5, *(1.1 * value for values in ratios for value in values if value == value)])
    canvas = Canvas(900, 380)
    canvas.text((20, 14), "Flicker at the seams between blocks", 17)
    canvas.legend((20, 54), ["seam / other latent boundaries", "seam / all frames inside blocks"])
    axes = Axes(58, 98, 885, 340, (0, len(report.rows)), (0, highest))
    canvas.grid(axes, [0, 0.5, 1, *_halves(1.5, highest)], ".1f", "ratio of mean frame differences")
    _bars(canvas, axes, [row.name for row in report.rows], ratios)
    canvas.dashes(axes.to_pixels(0, FLICKER_TARGET), axes.to_pixels(len(report.rows), FLICKER_TARGET))
    canvas.text((885, 374), f"dashed: the target, {FLICKER_TARGET}; 1.0: a seam is like any other boundary", 12, "rs")
    return canvas.image()


def _bars(canvas: Canvas, axes: Axes, groups: Sequence[str], series: Sequence[Sequence[float]]) -> None:
    """Draws one group of bars per unit of x, with its name below and the values at the tops of the bars."""
    width = 0.8 / len(series)
    for place, group in enumerate(groups):
        for i, values in enumerate(series):
            value = values[place]
            left = place + 0.1 + i * width
            if value == value:
                corner = axes.to_pixels(left, min(value, axes.y_range[1]))
                canvas.bar(corner, axes.to_pixels(left + 0.9 * width, 0), PALETTE[i])
                # Text inside the bar is not crossed by a dashed line; a short bar has no space for it.
                tall = axes.bottom - corner[1] > 20
                position = (axes.to_pixels(left + 0.45 * width, 0)[0], corner[1] + (4 if tall else -3))
                spec = ".0f" if axes.y_range[1] >= 100 else ".2f"
                canvas.text(position, format(value, spec), 11, "ma" if tall else "ms", "white" if tall else INK)
        canvas.text((axes.to_pixels(place + 0.5, 0)[0], axes.bottom + 6), group, 13, "ma")
    canvas.line([(axes.left, axes.bottom), (axes.right, axes.bottom)])


def _halves(start: float, stop: float) -> list[float]:
    """`start`, `start` + 0.5, … up to `stop`; in steps of 1 or more if `stop` is 4 or more."""
    step = 0.5 if stop < 4 else max(1.0, round(stop / 6))
    count = int((stop - start) / step) + 1
    return [start + step * i for i in range(count)] if stop >= start else []
