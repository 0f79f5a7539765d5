"""Settings of the KV cache."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model import WanConfig
from ..types import LatentShape
from .formats import pool_bytes, scratch_bytes
from .pool import PoolShape
from .quantized_pool import Smoothing


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Settings of the KV cache. Lengths are in latent frames, multiples of the block.

    window: frames that a block can attend, including itself and the sinks. sink: frames at the start of the film that
    are never evicted (the global sink); 0 turns off both sinks. shot_sink: also keep the first block of the current
    shot. kv_format: storage format of K/V, see `KV_FORMATS`. smoothing: of nvfp4 keys, see `QuantizedPool`.
    shot_clean_recache: at a cut, evict all but the global sink before the clean pass of the cut block. relative_rope:
    rotate keys by their position in the window instead of their position in the film. rope_offset: latent frames that
    each cut adds to the RoPE time. t_scale: scale of the RoPE time. independent_shots: at a cut, evict all but the
    global sink before the block is denoised, so that blocks depend on the global sink and on their own shot only.
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
    # Not in the text by which snapshots of the KV cache are compared, unless it is set: older ones do not know it.
    independent_shots: bool = field(default=False, repr=False)

    def __str__(self) -> str:
        return f"{self!r}{' with independent shots' * self.independent_shots}"

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

    def bytes(self, model: WanConfig, block: LatentShape, blocks: int | None = None, branches: int = 1) -> int:
        """Bytes of the K/V of a film. block: shape of one block. branches: 2 with guidance.

        blocks: length of the film, if it may be shorter than the window. Raises ValueError as `check` does, and for an
        unknown format.
        """
        return branches * pool_bytes(self.kv_format, self.pool_shape(model, block, blocks))

    def scratch_bytes(
        self, model: WanConfig, block: LatentShape, blocks: int | None = None, dtype: torch.dtype = torch.bfloat16
    ) -> int:
        """Bytes of the scratch buffer of a quantised format, in addition to `bytes`; 0 for the other formats."""
        return scratch_bytes(self.kv_format, self.pool_shape(model, block, blocks), dtype)

    def pool_shape(self, model: WanConfig, block: LatentShape, blocks: int | None = None) -> PoolShape:
        """Shape of one pool; arguments as in `bytes`. Raises ValueError as `check` does."""
        self.check(block.frames)
        slots = self.window // block.frames
        grid = model.grid(block.height, block.width)
        return PoolShape.of(
            model,
            batch=block.batch,
            slots=slots if blocks is None else min(slots, blocks),
            block_tokens=block.frames * grid[0] * grid[1],
        )

    def position(self, frame: int, cuts: int) -> float:
        """RoPE time of a latent frame of the film after `cuts` cuts: (frame + rope_offset · cuts) · t_scale."""
        return (frame + self.rope_offset * cuts) * self.t_scale

    def positions(self, frames: range, cuts: int, device: torch.device) -> Tensor:
        """`position` of consecutive frames, `[F]` float64, computed on the device, which needs no copy."""
        times = torch.arange(frames.start, frames.stop, dtype=torch.float64, device=device)
        return times.add_(self.rope_offset * cuts).mul_(self.t_scale)


DEFAULT_MEMORY = MemoryConfig()
