"""How a block that continues the block before it joins it, without a step between their pixels.

plain: the block is sampled by itself, as LongLive 2.0 does; only the KV cache joins it to the blocks before it.
align: the last frame of the block before is sampled again in front of the block, at its position and from its own
noise. What the new sample of this frame lacks of the finished one is added to the block and fades out:

    block before   … 5  6  7           finished
    one pass            7'  0  1  2  3  4 …        7' and the new block are sampled together
    added                   d ¾d ½d ¼d 0 …         d = 7 − 7'

Cuts are always plain.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..types import BlockSpec

Seam = Literal["plain", "align"]
SEAMS: tuple[Seam, ...] = get_args(Seam)

OVERLAP = 1
"""Latent frames of the block before that an aligned block samples again."""
FADE = 4
"""Latent frames of the block that the correction changes."""


def overlap(seam: Seam, block: BlockSpec, known: int) -> int:
    """Returns the number of frames to sample again in front of a block.

    0 for plain seams, for the first block, for cuts, and for blocks whose first `known` frames are given: the given
    frames join the block to the one before it.
    """
    return OVERLAP if seam == "align" and block.index > 0 and not block.cut and not known else 0


def align(x: Tensor, last: Tensor) -> Tensor:
    """Returns the new block without the frame in front, shifted towards the block before, `[B, C, F, H, W]`.

    x: the sample `[B, C, 1 + F, H, W]`, the last frame of the block before in front. last: that frame as finished,
    `[B, C, 1, H, W]`.
    """
    again, new = x[:, :, :OVERLAP], x[:, :, OVERLAP:]
    return new + fading(new.shape[2], x.device).to(x.dtype).view(1, 1, -1, 1, 1) * (last - again)


def fading(frames: int, device: torch.device | None = None) -> Tensor:
    """The weights of the correction for each of `frames` frames: 1, ¾, ½, ¼, 0, 0, …, `[frames]` float32."""
    weights = torch.zeros(frames, device=device)
    weights[:FADE] = torch.linspace(1, 0, FADE + 1, device=device)[: min(FADE, frames)]
    return weights
