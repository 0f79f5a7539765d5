"""The KV cache of a film as self-attention uses it in one model call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import FlowModel, Projected, Rope, rope_angles
from ..model.attention import Attention, attention_of
from ..transfer import to_device
from ..types import LatentShape
from .formats import Pool
from .pool import Slot


@dataclass(frozen=True, slots=True)
class RelativeRope:
    """RoPE angles by position in the window, for keys that are stored unrotated (`MemoryConfig.relative_rope`).

    keys: of every occupied slot, in slot order, and of the overlap. queries: of the overlap and the new block.
    """

    keys: Rope
    queries: Rope

    @classmethod
    def of_blocks(
        cls,
        blocks: Sequence[int],
        slot: int,
        shape: LatentShape,
        model: FlowModel,
        t_scale: float,
        overlap: int = 0,
    ) -> RelativeRope:
        """The angles for the blocks in the first slots, of which that in `slot` is the new block. shape: of one block.

        The blocks are numbered in film order as frames 0 … m − 1, and these are scaled by `t_scale`. overlap: the
        number of frames in front of the new block.
        """
        rank = {block: index for index, block in enumerate(sorted(blocks))}
        frames = [rank[block] * shape.frames + frame for block in blocks for frame in range(shape.frames)]
        start = rank[blocks[slot]] * shape.frames
        frames += range(start - overlap, start)
        times = to_device(torch.tensor(frames, dtype=torch.float64), model.device) * t_scale
        grid = model.config.grid(shape.height, shape.width)
        keys = rope_angles(times, grid, model.config.head_dim)
        tokens = shape.frames * grid[0] * grid[1]
        block = keys.tokens(slice(slot * tokens, (slot + 1) * tokens))
        if not overlap:
            return cls(keys, block)
        front = keys.tokens(slice(len(blocks) * tokens, None))
        return cls(keys, Rope(torch.cat((front.cos, block.cos), dim=1), torch.cat((front.sin, block.sin), dim=1)))


@dataclass(frozen=True, slots=True)
class BlockKVCache:
    """`KVCache` of one model call: writes the new block to its slot, then attends every occupied slot.

    A call may have frames of an earlier block in front of the new block (`sampling.seam`). Their K/V are attended in
    this call and not stored: the clean K/V of these frames stay in their slot.

    blocks: the block in each occupied slot. slot: the new block's slot. clean: whether the call is a clean pass.
    relative: given if keys are stored unrotated.
    """

    pool: Pool
    blocks: tuple[int, ...]
    slot: Slot
    block_frames: int
    clean: bool
    attention: Attention
    relative: RelativeRope | None = None

    @property
    def is_steady(self) -> bool:
        """Whether later calls differ from this one in numbers only: every slot is attended, no key is rotated anew."""
        return self.relative is None and len(self.blocks) == self.pool.shape.slots

    @property
    def frames(self) -> tuple[int, ...]:
        """The latent frames of the film that the queries attend, in film order."""
        return tuple(
            block * self.block_frames + frame for block in sorted(self.blocks) for frame in range(self.block_frames)
        )

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`."""
        front, new = slice(v.shape[1] - self.pool.shape.block_tokens), slice(-self.pool.shape.block_tokens, None)
        self.store(layer, k.tokens(new), v[:, new], rope.tokens(new))
        keys, values = self.pool.read(layer, len(self.blocks), v.dtype)
        if front.stop:
            again = k.tokens(front).rotated(rope.tokens(front) if self.relative is None else None)
            keys, values = torch.cat((keys, again), dim=1), torch.cat((values, v[:, front]), dim=1)
        attention = attention_of(self.attention, layer)
        if self.relative is None:
            return attention(q.rotated(rope), keys, values)
        return attention(q.rotated(self.relative.queries), self.relative.keys.rotate(keys), values)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """See `KVCache.store`."""
        new = self.pool.new_block(layer, self.slot)
        k.rotated(rope if self.relative is None else None, out=new.k)
        new.v.copy_(v)
        self.pool.commit(layer, self.slot, clean=self.clean)
