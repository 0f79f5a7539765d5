"""A film at a glance: one still per shot with its text below, as one picture."""

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
    """Keeps the still in the middle of every shot while the film passes; holds small pictures only.

    sheet = ContactSheet(plan.blocks, captions)
    for start, frames in film:          # video frame number, uint8 [T, H, W, 3]
        sheet.add(start, frames)
    sheet.save(path)
    """

    def __init__(self, blocks: Sequence[BlockSpec], captions: Sequence[str]) -> None:
        """`captions` has one text per shot."""
        self._captions = captions
        # A shot's first frame stands in until its middle comes: a film that is stopped shows its last shot too.
        self._wanted: dict[int, int] = {}
        for shot, start, stop in _ranges(blocks):
            self._wanted |= {start: shot, (start + stop) // 2: shot}
        self._stills: dict[int, Image.Image] = {}

    def add(self, start: int, frames: Tensor) -> None:
        """The film's next frames `[T, H, W, 3]` uint8, the first of them number `start`."""
        for i in range(len(frames)):
            shot = self._wanted.get(start + i)
            if shot is not None:
                self._stills[shot] = _thumbnail(frames[i])

    def save(self, path: Path | str) -> None:
        """Writes the picture; the ending of the name is its format. Raises OSError, and ValueError for no still."""
        self.draw().save(path)

    def draw(self) -> Image.Image:
        """The picture. Raises ValueError before the first still."""
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
    """(shot, first video frame, one past its last) of every shot."""
    shots = ((shot, list(own)) for shot, own in groupby(blocks, key=lambda block: block.shot))
    return [(shot, own[0].video_start, own[-1].video_start + own[-1].video_frames) for shot, own in shots]


def _thumbnail(frame: Tensor) -> Image.Image:
    picture = Image.fromarray(frame.cpu().numpy())
    return picture.resize((STILL_WIDTH, round(picture.height * STILL_WIDTH / picture.width)), Image.Resampling.LANCZOS)


def _wrap(text: str, width: int, font: Font) -> list[str]:
    """Lines no wider than `width` pixels, at most MAX_LINES of them; a word too long is broken."""
    lines = [""]
    for word in text.split():
        line = f"{lines[-1]} {word}".strip()
        if font.getlength(line) <= width:
            lines[-1] = line
            continue
        pieces = _break(word, width, font)
        lines += pieces if lines[-1] else []
        lines = lines if lines[0] else pieces
        if len(lines) > MAX_LINES:
            return [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1][:-1] + "…"]
    return lines


def _break(word: str, width: int, font: Font) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
