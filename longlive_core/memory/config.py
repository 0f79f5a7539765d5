"""What is remembered and how, as one value that a user sets."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..model import WanConfig
from ..types import LatentShape
from .formats import pool_bytes, scratch_bytes
from .pool import PoolShape
from .quantized_pool import Smoothing


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Lengths are latent frames and whole blocks.

    window: what a block can attend, itself and the sinks included. sink: frames at the start of the film that are
    never forgotten (the global sink); 0 turns both sinks off. shot_sink: also keep the first block of the current shot.
    kv_format: how keys and values are stored, see `KV_FORMATS`. smoothing: of keys in nvfp4, see `QuantizedPool`;
    `reference` is there to compare with recorded runs. shot_clean_recache: forget everything but the global
    sink at a cut, before the cut block's clean pass. relative_rope: rotate keys by their place in the window, not in
    the film. rope_offset: what each cut adds to the RoPE time, in latent frames. t_scale: scale of RoPE time.
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

    @property
    def pins_shots(self) -> bool:
        """Whether a cut changes what is kept."""
        return self.shot_sink and self.sink > 0

    def check(self, block_frames: int) -> None:
        """Raises ValueError, with a remedy, for lengths that blocks of `block_frames` cannot be kept in."""
        for name, value in (("window", self.window), ("sink", self.sink)):
            if value < 0 or value % block_frames:
                raise ValueError(
                    f"memory {name} {value} is not a multiple of the block, {block_frames} latent frames; "
                    f"try {max(0, round(value / block_frames)) * block_frames}"
                )
        least = self.sink + 2 * block_frames
        if self.window < least:
            raise ValueError(
                f"memory window {self.window} is too short for a sink of {self.sink}: it must hold the sink, one block "
                f"more and the new block; set window to {least} or more, or make the sink shorter"
            )
        if not self.t_scale > 0:
            raise ValueError(f"memory t_scale {self.t_scale} must be above 0; 1 is the time the model was trained with")

    def bytes(self, model: WanConfig, block: LatentShape, blocks: int | None = None, branches: int = 1) -> int:
        """Keys and values of a film: blocks of shape `block`; a film of fewer `blocks` than the window keeps less.

        branches: 2 with guidance. Raises ValueError where the blocks cannot be kept.
        """
        return branches * pool_bytes(self.kv_format, self._pool(model, block, blocks))

    def scratch_bytes(
        self, model: WanConfig, block: LatentShape, blocks: int | None = None, dtype: torch.dtype = torch.bfloat16
    ) -> int:
        """What reading them takes beside `bytes`: one layer decoded, where the format is a compressed one."""
        return scratch_bytes(self.kv_format, self._pool(model, block, blocks), dtype)

    def _pool(self, model: WanConfig, block: LatentShape, blocks: int | None) -> PoolShape:
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
        """RoPE time of a latent frame of the film after so many cuts: (frame + rope_offset · cuts) · t_scale."""
        return (frame + self.rope_offset * cuts) * self.t_scale


DEFAULT_MEMORY = MemoryConfig()
