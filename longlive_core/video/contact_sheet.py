"""A contact sheet: one still per shot with its caption below, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..types import BlockSpec

STILL_WIDTH = 256
MARGIN = 12
LINE = 17
MAX_LINES = 6
PAPER, INK, FAINT = (250, 249, 246), (30, 30, 34), (120, 120, 126)

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


class ContactSheet:
    """Collects the middle frame of every shot while a film is written; only thumbnails are in memory.

    sheet = ContactSheet(plan.blocks, captions)
    for start, frames in film:          # video frame number, uint8 [T, H, W, 3]
        sheet.add(start, frames)
    sheet.save(path)
    """

    def __init__(self, blocks: Sequence[BlockSpec], captions: Sequence[str]) -> None:
        """`captions` has one caption per shot."""
        self._captions = captions
        # The first frame of a shot is used until the middle one arrives: a stopped film shows its last shot too.
        self._wanted: dict[int, int] = {}
        for shot, start, stop in _ranges(blocks):
            self._wanted |= {start: shot, (start + stop) // 2: shot}
        self._stills: dict[int, Image.Image] = {}

    def add(self, start: int, frames: Tensor) -> None:
        """Adds frames `[T, H, W, 3]` uint8; `start` is the video frame number of the first."""
        for i in range(len(frames)):
            if (shot := self._wanted.get(start + i)) is not None:
                self._stills[shot] = thumbnail(frames[i])

    def save(self, path: Path | str) -> None:
        """Saves the picture; the extension sets its format. Raises OSError, and ValueError before the first frame."""
        self.draw().save(path)

    def draw(self) -> Image.Image:
        """Returns the picture. Raises ValueError before the first frame."""
        if not self._stills:
            raise ValueError("a contact sheet needs at least one frame; the film has none yet")
        shots = sorted(self._stills)
        return draw_sheet([Cell(self._stills[shot], f"Shot {shot + 1}", self._captions[shot]) for shot in shots])


class Cell(NamedTuple):
    """A still on a sheet, with a line above its caption."""

    still: Image.Image
    title: str
    caption: str


def draw_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Draws one or more stills of the same size as one picture, from left to right and from top to bottom."""
    font = ImageFont.load_default(13)
    captions = [_wrap(cell.caption, STILL_WIDTH, font) for cell in cells]
    height = max(cell.still.height for cell in cells)
    size = (STILL_WIDTH + MARGIN, height + LINE * (1 + max(map(len, captions))) + 2 * MARGIN)
    columns = min(len(cells), max(1, ceil(sqrt(len(cells) * size[1] / size[0]))))
    rows = ceil(len(cells) / columns)
    sheet = Image.new("RGB", (columns * size[0] + MARGIN, rows * size[1] + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (still, title, _) in enumerate(cells):
        x, y = MARGIN + i % columns * size[0], MARGIN + i // columns * size[1]
        sheet.paste(still, (x, y))
        y += height + 4
        pen.text((x, y), title, fill=FAINT, font=font)
        for line in captions[i]:
            y += LINE
            pen.text((x, y), line, fill=INK, font=font)
    return sheet


def _ranges(blocks: Sequence[BlockSpec]) -> list[tuple[int, int, int]]:
    """Returns (shot, start, stop) in video frames for every shot."""
    shots = ((shot, list(run)) for shot, run in groupby(blocks, key=lambda block: block.shot))
    return [(shot, run[0].video_start, run[-1].video_start + run[-1].video_frames) for shot, run in shots]


def thumbnail(frame: Tensor) -> Image.Image:
    """Scales a frame `[H, W, 3]` to STILL_WIDTH."""
    picture = Image.fromarray(frame.cpu().numpy())
    return picture.resize((STILL_WIDTH, round(picture.height * STILL_WIDTH / picture.width)), Image.Resampling.LANCZOS)


def _wrap(text: str, width: int, font: Font) -> list[str]:
    """Wraps a text to at most MAX_LINES lines of `width` pixels; a word that is too long is broken."""
    lines = [""]
    for word in text.split():
        line = f"{lines[-1]} {word}".strip()
        fits = font.getlength(line) <= width
        # Only the first line can be empty: a long first word replaces it.
        lines = [*lines[:-1], line] if fits else [*filter(None, lines), *_break(word, width, font)]
        if len(lines) > MAX_LINES:
            return [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1][:-1] + "…"]
    return lines


def _break(word: str, width: int, font: Font) -> list[str]:
    """Breaks a word into pieces of at most `width` pixels."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
