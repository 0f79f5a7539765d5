"""A contact sheet shows a film at a glance."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.types import BlockSpec
from longlive.longlive_core.video.contact_sheet import MARGIN, STILL_WIDTH, ContactSheet

SIZE = 64


def shots(*blocks: int) -> list[BlockSpec]:
    owners = [shot for shot, count in enumerate(blocks) for _ in range(count)]
    return [BlockSpec(i, shot, "", False, None, 8 * i, 8) for i, shot in enumerate(owners)]


def test_a_contact_sheet_shows_the_middle_of_every_shot() -> None:
    """Every frame is as grey as its number is high, so a still tells where it is from."""
    blocks = shots(2, 1, 3)
    sheet = ContactSheet(blocks, ["one", "two", "three"])
    for block in blocks:
        numbers = torch.arange(block.video_start, block.video_start + block.video_frames, dtype=torch.uint8)
        sheet.add(block.video_start, numbers.view(-1, 1, 1, 1).expand(-1, SIZE, SIZE, 3).contiguous())
    picture = sheet.draw()
    columns = (picture.width - MARGIN) // (STILL_WIDTH + MARGIN)
    middles = [61 // 2, (61 + 93) // 2, (93 + 189) // 2]
    rows = -(-3 // columns)
    for i, middle in enumerate(middles):
        x = MARGIN + i % columns * (STILL_WIDTH + MARGIN) + STILL_WIDTH // 2
        y = MARGIN + i // columns * ((picture.height - MARGIN) // rows) + STILL_WIDTH // 2
        assert picture.getpixel((x, y)) == (middle, middle, middle)


def test_long_captions_wrap_inside_their_column() -> None:
    """Nothing is drawn beyond the margin, not even a word longer than the still is wide."""
    sheet = ContactSheet(shots(1), ["w" * 150 + " and then " * 60])
    sheet.add(0, torch.zeros(29, SIZE, SIZE, 3, dtype=torch.uint8))
    picture = sheet.draw()
    edge = picture.crop((MARGIN + STILL_WIDTH, 0, picture.width, picture.height))
    assert len(edge.getcolors() or []) == 1
    bottom = picture.crop((0, picture.height - MARGIN, picture.width, picture.height))
    assert len(bottom.getcolors() or []) == 1


def test_a_stopped_film_has_a_still_of_the_shot_it_stopped_in() -> None:
    """A stopped film has a still of the shot it stopped in, and a film without a frame has no contact sheet."""
    sheet = ContactSheet(shots(2, 2), ["one", "two"])
    with pytest.raises(ValueError, match="at least one frame"):
        sheet.draw()
    for start, level in ((0, 20), (61, 90)):  # the first frames of both shots, and no middle one
        sheet.add(start, torch.full((4, SIZE, SIZE, 3), level, dtype=torch.uint8))
    picture = sheet.draw()
    assert picture.width == 2 * (STILL_WIDTH + MARGIN) + MARGIN
    y = MARGIN + STILL_WIDTH // 2
    middles = [MARGIN + i * (STILL_WIDTH + MARGIN) + STILL_WIDTH // 2 for i in range(2)]
    assert [picture.getpixel((x, y)) for x in middles] == [(20, 20, 20), (90, 90, 90)]
