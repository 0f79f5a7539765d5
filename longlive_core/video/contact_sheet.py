"""A contact sheet: one still per shot with its caption below, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil, sqrt
from pathlib import Path

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
                self._stills[shot] = _thumbnail(frames[i])

    def save(self, path: Path | str) -> None:
        """Saves the picture; the extension sets its format. Raises OSError, and ValueError before the first frame."""
        self.draw().save(path)

    def draw(self) -> Image.Image:
        """Returns the picture. Raises ValueError before the first frame."""
        if not self._stills:
            raise ValueError("a contact sheet needs at least one frame; the film has none yet")
        font = ImageFont.load_default(13)
        captions = {shot: _wrap(self._captions[shot], STILL_WIDTH, font) for shot in self._stills}
        height = max(still.height for still in self._stills.values())
        cell = (STILL_WIDTH + MARGIN, height + LINE * (1 + max(map(len, captions.values()))) + 2 * MARGIN)
        columns = min(len(self._stills), max(1, ceil(sqrt(len(self._stills) * cell[1] / cell[0]))))
        rows = ceil(len(self._stills) / columns)
        sheet = Image.new("RGB", (columns * cell[0] + MARGIN, rows * cell[1] + MARGIN), PAPER)
        pen = ImageDraw.Draw(sheet)
        for i, shot in enumerate(sorted(self._stills)):
            x, y = MARGIN + i % columns * cell[0], MARGIN + i // columns * cell[1]
            sheet.paste(self._stills[shot], (x, y))
            y += height + 4
            pen.text((x, y), f"Shot {shot + 1}", fill=FAINT, font=font)
            for line in captions[shot]:
                y += LINE
                pen.text((x, y), line, fill=INK, font=font)
        return sheet


def _ranges(blocks: Sequence[BlockSpec]) -> list[tuple[int, int, int]]:
    """Returns (shot, start, stop) in video frames for every shot."""
    shots = ((shot, list(run)) for shot, run in groupby(blocks, key=lambda block: block.shot))
    return [(shot, run[0].video_start, run[-1].video_start + run[-1].video_frames) for shot, run in shots]


def _thumbnail(frame: Tensor) -> Image.Image:
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
