"""An op with its arguments at the shapes of a model, on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .timing import DEVICE

EPS = 1e-6

Result = tuple[Tensor, ...]
Run = Callable[[Any], Result]


@dataclass(frozen=True)
class Size:
    """Shapes of the arguments.

    tokens, frames: of a block. width, heads, ffn: of the transformer. stage: activations of a VAE stage
    `[B, T, H, W, C]`. video: `[1, 3, T, H, W]`. device: where the arguments are.
    """

    tokens: int
    frames: int
    width: int
    heads: int
    ffn: int
    stage: tuple[int, ...]
    video: tuple[int, ...]
    device: str = DEVICE

    def normal(self, *shape: int) -> Tensor:
        """Random normal numbers in bf16."""
        return torch.randn(*shape, device=self.device).to(torch.bfloat16)

    def block(self) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Two activations `[1, L, C]`, and gate, scale and shift of each latent frame, `[1, F, C]`."""
        x, y = self.normal(2, 1, self.tokens, self.width).unbind(0)
        return x, y, self.normal(1, self.frames, 6, self.width).unbind(2)[:3]

    def rotations(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of random angles, `[1, L, D / 2]`."""
        angles = torch.randn(1, self.tokens, self.width // self.heads // 2, device=self.device)
        return angles.cos(), angles.sin()


FIVE_B = Size(7040, 8, 3072, 24, 14336, (1, 4, 176, 320, 512), (1, 3, 4, 704, 1280))
TOY = Size(8, 2, 96, 6, 256, (1, 2, 3, 4, 24), (1, 3, 2, 6, 10))


@dataclass(frozen=True)
class OpCase:
    """An op with its arguments.

    reads: tensors that must be read once. run: calls the op of a backend. comfy: calls the op of comfy-kitchen. decode:
    dequantises a result.
    """

    reads: tuple[Tensor, ...]
    run: Run
    comfy: Run | None = None
    decode: Callable[[Result], Result] = tuple
