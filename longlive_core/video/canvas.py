"""A small plotting library on pillow: axes, lines, bars and legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

from PIL import Image, ImageDraw, ImageFont

INK: Final = "#1f2933"
FAINT: Final = "#d9dee3"
PALETTE: Final = ("#1668b3", "#e08a1e", "#2f9461", "#b0403c", "#7b5ea7")
# Plots are drawn at this scale and reduced at the end, because pillow does not antialias lines.
OVERSAMPLING: Final = 3

Point = tuple[float, float]


@dataclass(frozen=True)
class Axes:
    """A rectangle of the picture in pixels, and the ranges of x and y values that it shows; y grows upwards."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: Point
    y_range: Point

    def to_pixels(self, x: float, y: float) -> Point:
        """The pixel position of the values (x, y)."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        across = (x - x0) / (x1 - x0)
        up = (y - y0) / (y1 - y0)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


class Canvas:
    """A picture of `width` × `height` pixels, white at first."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self._image = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING), "white")
        self._draw = ImageDraw.Draw(self._image)

    def image(self) -> Image.Image:
        """The picture, reduced to 64 colours so that its file is small."""
        return self._image.resize(self.size, Image.Resampling.LANCZOS).quantize(64, dither=Image.Dither.NONE)

    def text(self, at: Point, text: str, size: int = 13, anchor: str = "la", colour: str = INK) -> None:
        """Draws text. `anchor`, as in pillow: l, m or r along x, then a (top), m or s (baseline) along y."""
        font = ImageFont.load_default(size * OVERSAMPLING)
        self._draw.text(_scaled(at), text, fill=colour, font=font, anchor=anchor)

    def line(self, points: Sequence[Point], colour: str = INK, width: float = 1) -> None:
        """Draws a line through points; a point with NaN interrupts it."""
        piece: list[Point] = []
        for point in [*points, (float("nan"), 0.0)]:
            if not isnan(point[0]) and not isnan(point[1]):
                piece.append(_scaled(point))
            else:
                if len(piece) > 1:
                    self._draw.line(piece, fill=colour, width=round(width * OVERSAMPLING), joint="curve")
                piece = []

    def dashes(self, start: Point, stop: Point, colour: str = INK, dash: float = 5) -> None:
        """Draws a dashed horizontal line from left to right."""
        x = start[0]
        while x < stop[0]:
            self.line([(x, start[1]), (min(x + dash, stop[0]), stop[1])], colour, 1)
            x += 2 * dash

    def dot(self, at: Point, colour: str, radius: float = 3) -> None:
        """Draws a filled circle; a point with NaN draws nothing."""
        if not isnan(at[1]):
            x, y = _scaled(at)
            r = radius * OVERSAMPLING
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def bar(self, corner: Point, opposite: Point, colour: str) -> None:
        """Draws a filled rectangle, given its top left and bottom right corners."""
        self._draw.rectangle((*_scaled(corner), *_scaled(opposite)), fill=colour)

    def grid(self, axes: Axes, ticks: Sequence[float], spec: str, label: str) -> None:
        """Draws horizontal lines with their values, formatted by `spec`, and the label of the axis above them."""
        for tick in ticks:
            (left, y), (right, _) = axes.to_pixels(axes.x_range[0], tick), axes.to_pixels(axes.x_range[1], tick)
            self.line([(left, y), (right, y)], FAINT)
            self.text((left - 7, y), format(tick, spec), 12, "rm")
        self.text((axes.left - 38, axes.top - 12), label, 12, "ls")

    def x_ticks(self, axes: Axes, ticks: Sequence[float], label: str) -> None:
        """Draws values below the axes, and the label of the axis."""
        for tick in ticks:
            self.text((axes.to_pixels(tick, 0)[0], axes.bottom + 6), f"{tick:g}", 12, "ma")
        self.text(((axes.left + axes.right) / 2, axes.bottom + 24), label, 12, "ma")
        self.line([(axes.left, axes.bottom), (axes.right, axes.bottom)])

    def legend(self, at: Point, names: Sequence[str]) -> None:
        """Draws names in a row, each with its colour of the palette."""
        x, y = at
        for name, colour in zip(names, PALETTE, strict=False):
            self.bar((x, y - 5), (x + 14, y + 5), colour)
            self.text((x + 20, y), name, 13, "lm")
            x += 38 + ImageFont.load_default(13).getlength(name)


def _scaled(point: Point) -> Point:
    return point[0] * OVERSAMPLING, point[1] * OVERSAMPLING
