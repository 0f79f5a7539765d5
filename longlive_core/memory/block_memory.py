"""The memory of a film as self-attention meets it in one model call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Projected, Rope, rope_angles
from ..model.attention import Attention
from .pool import Pool


@dataclass(frozen=True, slots=True)
class RelativeRope:
    """Angles by place in the window: of every kept key in slot order, and of the new block's queries."""

    keys: Rope
    queries: Rope

    @classmethod
    def of_window(
        cls,
        blocks: tuple[int, ...],
        slot: int,
        block_frames: int,
        grid: tuple[int, int],
        head_dim: int,
        t_scale: float,
        device: torch.device,
    ) -> RelativeRope:
        """Film order gives the kept blocks frames 0 … m − 1, times t_scale, wherever their slots are."""
        rank = {block: place for place, block in enumerate(sorted(blocks))}
        frames = [rank[block] * block_frames + frame for block in blocks for frame in range(block_frames)]
        keys = rope_angles(torch.tensor(frames, dtype=torch.float64, device=device) * t_scale, grid, head_dim)
        tokens = block_frames * grid[0] * grid[1]
        rows = slice(slot * tokens, (slot + 1) * tokens)
        return cls(keys, Rope(keys.cos[:, rows], keys.sin[:, rows]))


@dataclass(frozen=True, slots=True)
class BlockKVCache:
    """`KVCache` of one call: the new block is written to its slot, then attends every occupied slot.

    blocks: the block in each occupied slot; slot: the new block's; clean: whether this is its clean pass;
    relative: set where keys are kept unrotated.
    """

    pool: Pool
    blocks: tuple[int, ...]
    slot: int
    block_frames: int
    clean: bool
    attention: Attention
    relative: RelativeRope | None = None

    @property
    def frames(self) -> tuple[int, ...]:
        """Latent frames of the film that this call's queries see, in film order."""
        return tuple(
            block * self.block_frames + frame for block in sorted(self.blocks) for frame in range(self.block_frames)
        )

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        self.store(layer, k, v, rope)
        keys, values = self.pool.get(layer, len(self.blocks), v.dtype)
        if self.relative is None:
            return self.attention(q.rotated(rope), keys, values)
        return self.attention(q.rotated(self.relative.queries), self.relative.keys.rotate(keys), values)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        place = self.pool.place(layer, self.slot)
        k.rotated(rope if self.relative is None else None, out=place.k)
        place.v.copy_(v)
        self.pool.keep(layer, self.slot, clean=self.clean)
