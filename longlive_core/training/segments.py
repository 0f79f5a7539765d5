"""The order of blocks in a sequence of teacher forcing, and the mask that their attention amounts to.

A segment holds the tokens of one block of one stream: of the clean film, or of a noisy copy of it. With several ranks
each has an equal share of the blocks of every stream, so that all have the same work and the same share of the loss
(balanced sequence parallelism). Blocks A B C D, upper case clean, on two ranks:

    one rank        A B C D a b c d
    two ranks       A B a b  |  C D c d
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..memory import Window

CLEAN = -1

History = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class SegmentOrder:
    """Which block of which stream each segment holds.

    order: (stream, block) of each segment; the streams are CLEAN and 0, 1, … of the noisy copies. history: of each
    block, the earlier blocks that it attends to.
    """

    blocks: int
    order: tuple[tuple[int, int], ...]
    history: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, blocks: int, clean: int, copies: int, history: History | None, ranks: int = 1) -> SegmentOrder:
        """The order of all segments of a film: the first `clean` blocks of the clean stream, all of each noisy copy.

        history: all earlier blocks by default. Raises ValueError if it contains a later block, or if the blocks do not
        split evenly on the ranks.
        """
        if blocks % ranks:
            raise ValueError(f"{blocks} blocks do not split evenly on {ranks} ranks; use a multiple of {ranks}")
        share = blocks // ranks
        order = [
            (stream, block)
            for rank in range(ranks)
            for stream in range(CLEAN, copies)
            for block in range(rank * share, (rank + 1) * share)
            if stream != CLEAN or block < clean
        ]
        return cls(blocks, tuple(order), _validated(history, blocks))

    def segments_of(self, block: int) -> list[int]:
        """Indices of the segments that hold a block, the clean one first if there is one."""
        found = [(stream, index) for index, (stream, held) in enumerate(self.order) if held == block]
        return [index for _, index in sorted(found)]

    def clean_segments(self) -> dict[int, int]:
        """Index of the segment of each clean block, by block."""
        return {block: index for index, (stream, block) in enumerate(self.order) if stream == CLEAN}

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """`[B, L, …]` → the tokens of each segment, `[B, L / segments, …]`."""
        return x.unflatten(1, (len(self.order), -1)).unbind(1)

    def join(self, outputs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Concatenates the outputs of all blocks along dimension 1, in the order of the sequence.

        outputs: for each block, one tensor `[B, L, …]` for each of `segments_of(block)`.
        """
        placed = {
            segment: value
            for block, values in enumerate(outputs)
            for segment, value in zip(self.segments_of(block), values, strict=True)
        }
        return torch.cat([placed[segment] for segment in range(len(self.order))], dim=1)


def window_history(cuts: Sequence[bool], slots: int, *, sinks: int = 1, shot_sink: bool = True) -> History:
    """Returns the `history` of a film whose KV cache has a window: a model then trains on what it is served.

    cuts: whether each block starts a shot after the first. slots, sinks, shot_sink: see `Window`, which raises
    ValueError if they do not fit together.
    """
    window = Window(slots, sinks=sinks, shot_sink=shot_sink)
    history: list[tuple[int, ...]] = []
    for block, cut in enumerate(cuts):
        window.begin(block)
        history.append(window.attended()[:-1])
        window.end(cut=cut)
    return tuple(history)


def attention_mask(frames: int, block_frames: int, tokens: int, ranks: int = 1) -> Tensor:
    """Returns the mask that teacher forcing of a clean and a noisy film amounts to, bool `[queries, keys]`.

    frames: latent frames of each film. tokens: of a latent frame. ranks: among which the latent frames are split evenly
    for balanced sequence parallelism; the tokens are in the order of ranks, each rank's clean frames before its noisy
    ones. Raises ValueError if a rank does not get whole blocks.
    """
    if frames == 0 or frames % (ranks * block_frames):
        raise ValueError(f"{frames} latent frames do not split into whole blocks of {block_frames} on {ranks} ranks")
    blocks = torch.arange(frames).div(block_frames, rounding_mode="floor").reshape(ranks, 1, -1)
    block = blocks.expand(-1, 2, -1).flatten().repeat_interleave(tokens)
    noisy = torch.tensor([False, True])[None, :, None].expand(ranks, -1, frames // ranks).flatten()
    noisy = noisy.repeat_interleave(tokens)
    q, k = block[:, None], block[None]
    return torch.where(noisy, noisy[:, None] & (k == q), torch.where(noisy[:, None], k < q, k <= q))


def _validated(history: History | None, blocks: int) -> tuple[tuple[int, ...], ...]:
    if history is None:
        return tuple(tuple(range(block)) for block in range(blocks))
    if len(history) != blocks:
        raise ValueError(f"history has {len(history)} entries, but must have one for each of the {blocks} blocks")
    for block, seen in enumerate(history):
        if any(not 0 <= earlier < block for earlier in seen):
            raise ValueError(f"history of block {block} is {list(seen)}, but a block can attend to earlier blocks only")
    return tuple(tuple(seen) for seen in history)
