"""The KV cache of a film as self-attention uses it in one model call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import FlowModel, Projected, Rope, rope_angles
from ..model.attention import Attention
from ..types import LatentShape
from .formats import Pool
from .window import Window


@dataclass(frozen=True, slots=True)
class RelativeRope:
    """RoPE angles by position in the window, for keys that are stored unrotated (`MemoryConfig.relative_rope`).

    keys: of every occupied slot, in slot order. queries: of the new block.
    """

    keys: Rope
    queries: Rope

    @classmethod
    def of_window(cls, window: Window, shape: LatentShape, model: FlowModel, t_scale: float) -> RelativeRope:
        """The angles for the blocks in the window, of which the current one is the new block. shape: of one block.

        The blocks are numbered in film order as frames 0 … m − 1, and these are scaled by `t_scale`.
        """
        rank = {block: index for index, block in enumerate(sorted(window.blocks))}
        frames = [rank[block] * shape.frames + frame for block in window.blocks for frame in range(shape.frames)]
        times = torch.tensor(frames, dtype=torch.float64, device=model.device) * t_scale
        grid = model.config.grid(shape.height, shape.width)
        keys = rope_angles(times, grid, model.config.head_dim)
        tokens = shape.frames * grid[0] * grid[1]
        rows = slice(window.slot * tokens, (window.slot + 1) * tokens)
        return cls(keys, Rope(keys.cos[:, rows], keys.sin[:, rows]))


@dataclass(frozen=True, slots=True)
class BlockKVCache:
    """`KVCache` of one model call: writes the new block to its slot, then attends every occupied slot.

    blocks: the block in each occupied slot. slot: the new block's slot. clean: whether the call is a clean pass.
    relative: given if keys are stored unrotated.
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
        """The latent frames of the film that the queries attend, in film order."""
        return tuple(
            block * self.block_frames + frame for block in sorted(self.blocks) for frame in range(self.block_frames)
        )

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`."""
        self.store(layer, k, v, rope)
        keys, values = self.pool.read(layer, len(self.blocks), v.dtype)
        if self.relative is None:
            return self.attention(q.rotated(rope), keys, values)
        return self.attention(q.rotated(self.relative.queries), self.relative.keys.rotate(keys), values)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """See `KVCache.store`."""
        new = self.pool.new_block(layer, self.slot)
        k.rotated(rope if self.relative is None else None, out=new.k)
        new.v.copy_(v)
        self.pool.commit(layer, self.slot, clean=self.clean)
