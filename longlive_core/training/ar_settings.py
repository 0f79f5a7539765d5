"""Settings of autoregressive training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..memory.formats import KV_FORMATS
from ..model.nvfp4_products import NVFP4Settings
from ..types import BLOCK_FRAMES
from .error_recycling import ErrorRecyclingSettings
from .segments import History, window_history


@dataclass(frozen=True, slots=True)
class ARSettings:
    """Settings of autoregressive training. The defaults are those of LongLive 2.0, except for float32 timesteps.

    block_frames: latent frames in a block. shift: of the timestep table. bf16_timesteps: round timesteps to bfloat16
    before use, as the reference does. context_noise: noise the clean latents that later blocks attend to, at a random
    timestep of the table up to this one; 0 turns it off. window: latent frames that a block attends to, itself
    included, as the KV cache does when it serves; 0 is the whole film, as in the reference. sink: latent frames at the
    start of the film that stay in the window. shot_sink: whether the first block of a shot stays in the window until
    the next cut. kv_format: round the K/V of earlier blocks as a KV cache of this format does, such as nvfp4; not set
    is exact. nvfp4: train in NVFP4 what the blocks' linear layers multiply; not set is the trainer's precision.
    checkpointing: compute activations again in the backward pass instead of keeping them. weighting: of the losses of
    noise levels: bell, as in LongLive 2.0, which leaves out the noisiest, or uniform. error_recycling: inputs carry
    errors of earlier steps; not set is none. Raises ValueError if window or sink are not whole blocks, and for an
    unknown format.
    """

    block_frames: int = BLOCK_FRAMES
    shift: float = 5.0
    bf16_timesteps: bool = False
    context_noise: float = 0.0
    window: int = 0
    sink: int = BLOCK_FRAMES
    shot_sink: bool = True
    kv_format: str | None = None
    checkpointing: bool = False
    nvfp4: NVFP4Settings | None = None
    weighting: Literal["bell", "uniform"] = "bell"
    error_recycling: ErrorRecyclingSettings | None = None

    def __post_init__(self) -> None:
        if self.block_frames < 1:
            raise ValueError(f"a block needs one latent frame or more, not {self.block_frames}")
        for name, frames in (("window", self.window), ("sink", self.sink)):
            if self.window and (frames < 0 or frames % self.block_frames):
                raise ValueError(f"{name} of {frames} latent frames is not whole blocks of {self.block_frames}")
        if self.kv_format is not None and self.kv_format not in KV_FORMATS:
            raise ValueError(f"kv_format '{self.kv_format}' is not available; choose one of {', '.join(KV_FORMATS)}")
        if not 0 <= self.context_noise <= 1000:
            raise ValueError(f"context_noise {self.context_noise} is outside 0 … 1000")

    def history(self, cuts: tuple[bool, ...]) -> History | None:
        """Blocks that each block attends to, None for all earlier ones. cuts: whether each block starts a new shot."""
        if not self.window:
            return None
        slots, sinks = self.window // self.block_frames, self.sink // self.block_frames
        return window_history(cuts, slots, sinks=sinks, shot_sink=self.shot_sink)
