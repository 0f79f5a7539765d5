"""The arithmetic of latent time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longlive.longlive_core.types import BlockSpec, LatentShape, PixelShape, latent_frames, video_frames


def test_a_block_of_8_is_32_video_frames_and_the_first_29() -> None:
    """A block of 8 latent frames is 32 video frames, and the first block is 29."""
    first = BlockSpec(0, 0, "", False, None, 0, 8)
    second = BlockSpec(1, 0, "", False, None, 8, 8)
    assert (first.video_start, first.video_frames) == (0, 29)
    assert (second.video_start, second.video_frames) == (29, 32)


@given(st.integers(0, 10**6))
def test_latent_frames_cover_their_video_frames_exactly(latent: int) -> None:
    """`latent_frames` is the inverse of `video_frames`."""
    assert latent_frames(video_frames(latent)) == latent


def test_released_size() -> None:
    """Pixels of the released size and their latents, 1/16 in space and 1/4 in time, give each other."""
    assert PixelShape(1, 509, 704, 1280).latent == LatentShape(1, 48, 128, 44, 80)
    assert LatentShape(1, 48, 128, 44, 80).pixels == PixelShape(1, 509, 704, 1280)


@pytest.mark.parametrize(("height", "width"), [(700, 1280), (704, 1281), (0, 64), (-32, 64), (48, 64)])
def test_a_size_that_the_patch_does_not_divide_is_refused_with_the_next_one(height: int, width: int) -> None:
    """A height or width that is no positive multiple of 32 is refused with one that is."""
    with pytest.raises(ValueError, match=r"positive multiples of 32; try height \d+ and width \d+"):
        _ = PixelShape(1, 1, height, width).latent
