"""The arms of the ladder: weights, KV cache, attention and kernels of a transformer pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from longlive.kernels.registry import Choice
from longlive.longlive_core.model import WAN22_TI2V_5B, WanConfig
from longlive.longlive_core.types import LatentShape

from .attentions import AttentionKind, find_attention
from .timing import CUDA

SLOTS = 4
FILM_BLOCKS = 1 << 20  # more than the window, so that the window limits the KV cache


@dataclass(frozen=True)
class Size:
    """A model and the shape of its blocks: `latent` height and width, and number of latent frames."""

    config: WanConfig
    latent: tuple[int, int]
    frames: int

    @property
    def block(self) -> LatentShape:
        """Shape of a block of one film."""
        return LatentShape(1, self.config.channels, self.frames, *self.latent)


FIVE_B = Size(WAN22_TI2V_5B, (44, 80), 8)
# Fewer tokens without CUDA, where CI waits for it.
TOY = Size(
    WanConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=2, freq_dim=32, text_dim=32, text_len=16),
    (16, 16) if CUDA else (2, 4),
    2,
)


@dataclass(frozen=True)
class Arm:
    """One configuration of a pass.

    adds: description of the change. copies: use the copy-and-roll cache. blocks: time whole blocks too.
    """

    name: str
    adds: str
    weights: Literal["bf16", "fp8", "nvfp4"] = "bf16"
    kv: str = "bf16"
    copies: bool = False
    attention: AttentionKind = "best"
    compiled: bool = False
    kernels: Choice = "auto"
    blocks: bool = False

    @property
    def not_run(self) -> str | None:
        """Why the arm cannot run on this machine, or None."""
        if self.name == "b2" and not CUDA:
            return "cuDNN needs CUDA"
        if self.weights == "fp8" and CUDA and torch.cuda.get_device_capability() < (8, 9):
            return "this GPU has no FP8 units"
        attention = find_attention(self.attention, FIVE_B.config.head_dim)
        return attention if isinstance(attention, str) else None


# Most important first, because time may run out. Groups of four are visited in order and in reverse order.
LADDER = (
    Arm("d", "b2 + Triton kernels: ours", blocks=True),
    Arm("u", "d with ComfyUI's order of attention backends: its own path", attention="host", blocks=True),
    Arm("e", "d + FP8 linears (W8A8)", weights="fp8", blocks=True),
    Arm("e8", "e + FP8 attention", weights="fp8", attention="fp8", blocks=True),
    Arm("a", "copy-and-roll cache, FlashAttention", copies=True, attention="flash", kernels="eager", blocks=True),
    Arm("b", "a + ring slots, torch's default attention", attention="default", kernels="eager"),
    Arm("b2", "b + cuDNN attention first", kernels="eager"),
    Arm("h", "d + KV in NVFP4", kv="nvfp4"),
    Arm("f", "d + NVFP4 weights", weights="nvfp4"),
    Arm("fh", "f + h: the least memory", weights="nvfp4", kv="nvfp4", blocks=True),
    Arm("g", "d + KV in FP8", kv="fp8"),
    Arm("q", "d + KV in q2", kv="q2"),
    Arm("eh", "e + h", weights="fp8", kv="nvfp4"),
    Arm("eg", "e + g", weights="fp8", kv="fp8"),
    Arm("fg", "f + g", weights="nvfp4", kv="fp8"),
    Arm("ue", "u + FP8 linears: its own path with precision fp8 fast", weights="fp8", attention="host"),
)
COMPILED = (
    LADDER[6],
    Arm("c", "b2 + torch.compile of every layer", compiled=True, kernels="eager", blocks=True),
)
ARMS = {arm.name: arm for arm in (*LADDER, *COMPILED)}
EXACT = Arm("exact", "b in float32", kv="float32", attention="default", kernels="eager")
