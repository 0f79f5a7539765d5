"""Plots of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from PIL import Image

from ..video.canvas import INK, PALETTE, Axes, Canvas
from .arm_films import ArmResult
from .arms import MAIN, MEMORY_OFF
from .bootstrap import Estimate
from .measures import ATTRIBUTES, IDENTITY
from .scores import CHANCE, PARTS, Measure, find, over_looks, share
from .scripts import GAPS, SHOT_BLOCKS

PER_CENT: Final = (0, 25, 50, 75, 100)
INTERVAL_SECONDS: Final = 4.0  # between two points of a minute

Points = Sequence[tuple[float, float]]


def make_plots(results: Sequence[ArmResult]) -> dict[str, Image.Image]:
    """The plots by name; those without a figure are left out."""
    plots = {
        "adherence": plot_adherence(results),
        "recall": plot_recall(results),
        "identity": plot_identity(results),
        "drift": plot_one_shot(results),
    }
    return {name: plot for name, plot in plots.items() if plot is not None}


def plot_adherence(results: Sequence[ArmResult]) -> Image.Image | None:
    """Bars with intervals for each attribute: the parts of the first arm, and later shots without memory."""
    series = [(name.partition(":")[0], find(results, MAIN, group), part) for name, group, part in PARTS]
    series.append(("carried, memory off", find(results, MEMORY_OFF, "short"), PARTS[1][2]))
    series = [(name, films, part) for name, films, part in series if films]
    if not series:
        return None
    canvas = Canvas(380, "Share of looks that show what was asked for", [name for name, _, _ in series])
    axes = Axes(58, 98, 885, 340, (0, len(ATTRIBUTES)), (0, 100))
    canvas.grid(axes, PER_CENT, ".0f", "% of looks")
    bars(canvas, axes, ATTRIBUTES, [[share(films, a, part) for a in ATTRIBUTES] for _, films, part in series])
    for place, name in enumerate(ATTRIBUTES):
        if name in IDENTITY:
            level = 100 * CHANCE[name]
            canvas.dashes(axes.to_pixels(place + 0.04, level), axes.to_pixels(place + 0.96, level))
    canvas.text((885, 374), "dashed: the hero guessed at random; lines: 95 % intervals", 12, "rs")
    return canvas.image()


def plot_recall(results: Sequence[ArmResult]) -> Image.Image | None:
    """Colour, shape and size of the hero by the number of shots since it was described, with one line for each arm."""
    arms = {result.arm.name: films for result in results if (films := result.group("gap"))}

    def at(gap: int, name: str) -> Measure:
        return lambda look: float(look.correct[name]) if look.shot == gap else None

    lines = {
        name: {
            arm: [(gap, 100 * over_looks(films, at(gap, name)).value) for gap in GAPS] for arm, films in arms.items()
        }
        for name in IDENTITY
    }
    return _identity_lines("The hero by the number of shots since it was described", lines, GAPS[-1], "shots")


def plot_identity(results: Sequence[ArmResult]) -> Image.Image | None:
    """Colour, shape and size of the hero over a minute, with one line for each arm."""
    arms = {result.arm.name: films for result in results if (films := result.group("minute"))}

    def during(index: int, name: str) -> Measure:
        return lambda look: float(look.correct[name]) if int(look.seconds / INTERVAL_SECONDS) == index else None

    lines = {
        name: {
            arm: [
                ((i + 0.5) * INTERVAL_SECONDS, 100 * over_looks(films, during(i, name)).value)
                for i in range(int(60 / INTERVAL_SECONDS))
            ]
            for arm, films in list(arms.items())[: len(PALETTE)]
        }
        for name in IDENTITY
    }
    return _identity_lines("The hero over one minute, described in shot 1 only", lines, 60, "seconds")


def plot_one_shot(results: Sequence[ArmResult]) -> Image.Image | None:
    """Difference from the rendered film in each block of one long shot, of wall and hero of each arm."""
    arms = {result.arm.name: films for result in results if (films := result.group("shot"))}

    def at(block: int, hero: bool) -> Measure:
        return lambda look: (look.hero_difference if hero else look.wall_difference) if look.block == block else None

    lines = {
        f"{what}, {arm}": [(b + 1.0, over_looks(films, at(b, what == "hero")).value) for b in range(1, SHOT_BLOCKS)]
        for arm, films in arms.items()
        for what in ("wall", "hero")
    }
    if not lines:
        return None
    highest = 1.1 * max(value for points in lines.values() for _, value in points)
    canvas = Canvas(380, f"One shot of {SHOT_BLOCKS} blocks: difference from the rendered film", list(lines))
    axes = Axes(58, 98, 885, 330, (1, SHOT_BLOCKS), (0, highest))
    step = max(1, round(highest / 5))
    canvas.grid(axes, range(0, int(highest) + 1, step), ".0f", "levels of 255")
    _lines(canvas, axes, lines)
    canvas.x_ticks(axes, range(5, SHOT_BLOCKS + 1, 5), "block")
    return canvas.image()


def _identity_lines(
    title: str, lines: Mapping[str, Mapping[str, Points]], end: float, label: str
) -> Image.Image | None:
    """One pair of axes for each attribute of the hero; attribute → arm → points."""
    names = list(lines[IDENTITY[0]])
    if not names:
        return None
    canvas = Canvas(760, title, names)
    for place, name in enumerate(IDENTITY):
        top = 98 + 215 * place
        axes = Axes(58, top, 885, top + 160, (0, end), (0, 100))
        canvas.grid(axes, PER_CENT, ".0f", f"% of looks with the right {name}")
        level = 100 * CHANCE[name]
        canvas.dashes(axes.to_pixels(0, level), axes.to_pixels(end, level))
        _lines(canvas, axes, lines[name])
        canvas.x_ticks(axes, [end * i / 6 for i in range(7)], label if place == len(IDENTITY) - 1 else "")
    canvas.text((885, 754), "dashed: the hero guessed at random", 12, "rs")
    return canvas.image()


def _lines(canvas: Canvas, axes: Axes, lines: Mapping[str, Points]) -> None:
    for points, colour in zip(lines.values(), PALETTE, strict=False):
        pixels = [axes.to_pixels(x, y) for x, y in points]
        canvas.line(pixels, colour, 2)
        for point in pixels:
            canvas.dot(point, colour)


def bars(canvas: Canvas, axes: Axes, groups: Sequence[str], series: Sequence[Sequence[Estimate]]) -> None:
    """Draws one group of bars per unit of x, in %, with its name below, values in the bars and their intervals."""
    width = 0.8 / len(series)
    for place, group in enumerate(groups):
        for i, estimates in enumerate(series):
            value, left = estimates[place], place + 0.1 + i * width
            if value.films:
                corner = axes.to_pixels(left, 100 * value.value)
                canvas.bar(corner, axes.to_pixels(left + 0.9 * width, 0), PALETTE[i])
                # Text inside the bar is not crossed by a dashed line; a short bar has no space for it.
                tall = axes.bottom - corner[1] > 20
                centre = left + 0.45 * width
                at = (axes.to_pixels(centre, 0)[0], axes.bottom - 16 if tall else corner[1] - 3)
                canvas.text(at, f"{100 * value.value:.0f}", 11, "ma" if tall else "ms", "white" if tall else INK)
                canvas.line([axes.to_pixels(centre, 100 * value.low), axes.to_pixels(centre, 100 * value.high)], INK, 2)
        canvas.text((axes.to_pixels(place + 0.5, 0)[0], axes.bottom + 6), group, 13, "ma")
    canvas.line([(axes.left, axes.bottom), (axes.right, axes.bottom)])
