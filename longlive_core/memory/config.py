"""Settings of the KV cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal, get_args

import torch
from torch import Tensor

from ..model import WanConfig
from ..parallel import Ranks
from ..types import BlockSpec, LatentShape
from ..units import plural
from .formats import pool_bytes, scratch_bytes
from .pool import PoolShape
from .quantized_pool import Smoothing

RecallPosition = Literal["original", "before_shot"]
"""The RoPE position of a recalled block: its own in the film, or that of the frames before the shot that recalls it.

The block of a cast file has no position in the film: it is always before the shot. `relative_rope` numbers the blocks
of the window instead, so that both values mean the same. A cut leaves a gap of `rope_offset` frames, which one recalled
block fills. Where a shot recalls more, or continues without a cut, recalled blocks have the positions of the blocks
before the shot, too.
"""
RECALL_POSITIONS: tuple[RecallPosition, ...] = get_args(RecallPosition)


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Settings of the KV cache. Lengths are in latent frames, multiples of the block.

    window: frames that a block can attend, including itself and the sinks. sink: frames at the start of the film that
    are never evicted (the global sink); 0 turns off both sinks. shot_sink: also keep the first block of the current
    shot. kv_format: storage format of K/V, see `KV_FORMATS`. smoothing: of nvfp4 keys, see `QuantizedPool`.
    shot_clean_recache: at a cut, evict all but the global sink before the clean pass of the cut block. relative_rope:
    rotate keys by their position in the window instead of their position in the film. rope_offset: latent frames that
    each cut adds to the RoPE time. t_scale: scale of the RoPE time. recall_position: see `RecallPosition`.
    independent_shots: at a cut, evict all but the global sink before the block is denoised, so that blocks depend on
    the global sink and on their own shot only.
    """

    window: int = 32
    sink: int = 8
    shot_sink: bool = True
    kv_format: str = "bf16"
    smoothing: Smoothing = "token"
    shot_clean_recache: bool = False
    relative_rope: bool = False
    rope_offset: float = 8.0
    t_scale: float = 1.0
    # `__str__`, by which snapshots of the KV cache are compared, names them only where they differ from what snapshots
    # had that do not know them: `original` and False.
    recall_position: RecallPosition = field(default="before_shot", repr=False)
    independent_shots: bool = field(default=False, repr=False)

    def __str__(self) -> str:
        position = "" if self.recall_position == "original" else f", recall_position={self.recall_position}"
        return f"{self!r}{position}{', independent_shots' * self.independent_shots}"

    @property
    def pins_shots(self) -> bool:
        """Whether the first block of a shot is pinned as the shot sink."""
        return self.shot_sink and self.sink > 0

    def check(self, block_frames: int) -> None:
        """Raises ValueError if the lengths do not fit blocks of `block_frames`, or t_scale is 0 or less."""
        for name, value in (("window", self.window), ("sink", self.sink)):
            if value < 0 or value % block_frames:
                raise ValueError(
                    f"memory {name} {value} is not a multiple of the block, {block_frames} latent frames; "
                    f"try {max(0, round(value / block_frames)) * block_frames}"
                )
        least = self.sink + 2 * block_frames
        if self.window < least:
            raise ValueError(
                f"memory window {self.window} is too short for a sink of {self.sink}: it must hold the sink, one other "
                f"block and the new block; set window to {least} or more, or shorten the sink"
            )
        if not self.t_scale > 0:
            raise ValueError(f"memory t_scale {self.t_scale} must be above 0; the models were trained with 1")
        if self.recall_position not in RECALL_POSITIONS:
            known = ", ".join(RECALL_POSITIONS)
            raise ValueError(f"memory recall_position '{self.recall_position}' is not known; choose one of {known}")

    @property
    def recalls_anew(self) -> bool:
        """Whether a recalled block enters again, at another position, although the window holds it."""
        return self.recall_position == "before_shot" and not self.relative_rope

    def recallable(self, block_frames: int) -> int:
        """The number of recalled blocks that fit beside the sinks and the new block."""
        return (self.window - self.sink) // block_frames - 1 - int(self.pins_shots)

    def recalled_by_shot(self, blocks: Iterable[BlockSpec], block_frames: int) -> Iterator[tuple[int, int]]:
        """Yields each shot (from 0) and how many slots its recalled blocks take.

        Global sinks have theirs already, unless their copies enter (`recalls_anew`).
        """
        sinks = 0 if self.recalls_anew else self.sink // block_frames
        for shot, specs in groupby(blocks, key=lambda block: block.shot):
            yield shot, len({block for block in next(specs).recalled if not 0 <= block < sinks})

    def check_recalled(self, blocks: Iterable[BlockSpec], block_frames: int) -> None:
        """Raises ValueError if a shot of these blocks recalls more than fit, or any with independent shots."""
        blocks, fits = tuple(blocks), self.recallable(block_frames)
        fewer = dict(replace(self, recall_position="original").recalled_by_shot(blocks, block_frames))
        for shot, count in self.recalled_by_shot(blocks, block_frames):
            if count and self.independent_shots:
                raise ValueError(
                    f"shot {shot + 1} recalls {plural(count, 'block')}, but independent shots see the film's start and "
                    "themselves only; take @recall out, or leave independent shots off"
                )
            if count > max(0, fits):
                needed = self.window + (count - fits) * block_frames
                sinks = "; at recall_position original the film's first block takes no slot of its own"
                raise ValueError(
                    f"shot {shot + 1} recalls {plural(count, 'block')}, but {fits if fits > 0 else 'none'} "
                    f"{'fits' if fits == 1 else 'fit'} beside the sinks in a window of {self.window} latent frames; "
                    f"recall fewer, or set window to {needed} or more{sinks if fewer[shot] < count else ''}"
                )

    def bytes(
        self, model: WanConfig, block: LatentShape, blocks: int | None = None, branches: int = 1, ranks: int = 1
    ) -> int:
        """Bytes of the K/V of a film. block: shape of one block. branches: 2 with guidance.

        blocks: length of the film, if it may be shorter than the window. ranks: that share the heads; the bytes are
        those of the one with the most. Raises ValueError as `check` does, and for an unknown format.
        """
        return branches * pool_bytes(self.kv_format, self.pool_shape(model, block, blocks, ranks))

    def scratch_bytes(
        self,
        model: WanConfig,
        block: LatentShape,
        blocks: int | None = None,
        dtype: torch.dtype = torch.bfloat16,
        ranks: int = 1,
    ) -> int:
        """Bytes of the scratch buffer of a quantised format, in addition to `bytes`; 0 for the other formats."""
        return scratch_bytes(self.kv_format, self.pool_shape(model, block, blocks, ranks), dtype)

    def pool_shape(self, model: WanConfig, block: LatentShape, blocks: int | None = None, ranks: int = 1) -> PoolShape:
        """Shape of one pool; arguments as in `bytes`. Raises ValueError as `check` does."""
        self.check(block.frames)
        slots = self.window // block.frames
        grid = model.grid(block.height, block.width)
        shape = PoolShape.of(
            model,
            batch=block.batch,
            slots=slots if blocks is None else min(slots, blocks),
            block_tokens=block.frames * grid[0] * grid[1],
        )
        return shape if ranks == 1 else replace(shape, ranks=Ranks(ranks, ranks - 1))  # the last rank has the most

    def position(self, frame: int, cuts: int) -> float:
        """RoPE time of a latent frame of the film after `cuts` cuts: (frame + rope_offset · cuts) · t_scale."""
        return (frame + self.rope_offset * cuts) * self.t_scale

    def positions(self, frames: range, cuts: int, device: torch.device) -> Tensor:
        """`position` of consecutive frames, `[F]` float64, computed on the device, which needs no copy."""
        times = torch.arange(frames.start, frames.stop, dtype=torch.float64, device=device)
        return times.add_(self.rope_offset * cuts).mul_(self.t_scale)


DEFAULT_MEMORY = MemoryConfig()
