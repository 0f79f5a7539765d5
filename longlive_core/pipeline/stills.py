"""The latents of a picture of a shot, which a few frames of decoding make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..types import Block, BlockSpec

# The latent frame of a shot's first block that its still shows: the decoder blends the very first ones with the shot
# before.
STILL_AT = 3
# Latent frames of the block before that are decoded first. Decoding all that the pixels depend on, 40 latent frames,
# would take longer than sampling the block, for a difference that a small picture hardly shows.
WARM_UP = 2


def still_at(block: BlockSpec) -> int:
    """Returns the index, in its first block, of the latent frame that the still of a shot shows."""
    return min(STILL_AT, block.frames - 1)


def opening_pieces(blocks: Iterable[Block]) -> Iterator[Block]:
    """Takes the blocks of a storyboard, and yields the latents to decode of each for the still of its shot."""
    for block in blocks:
        yield Block(block.spec, block.latents[:, :, : still_at(block.spec) + 1])


def still_pieces(blocks: Iterable[Block], first: int) -> Iterator[Block]:
    """Takes all blocks of a film, and yields the latents to decode for a still of the shot with this first block.

    The last frame that they decode to is the still.
    """
    before: Tensor | None = None
    for block in blocks:
        if block.index == first:
            latents = block.latents[:, :, : still_at(block.spec) + 1]
            yield Block(block.spec, latents if before is None else torch.cat([before, latents], dim=2))
        before = block.latents[:, :, -WARM_UP:]
