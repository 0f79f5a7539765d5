"""Previews of blocks by the host's linear map from latents to colours, which needs no VAE."""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy.latent_formats import LatentFormat
from torch import Tensor

from ..longlive_core.types import Block

Preview = Callable[[Block], Tensor]


class LatentColours:
    """A preview by the host's linear map from latents to colours, with one frame for every latent frame."""

    def __init__(self, latent_format: LatentFormat) -> None:
        self._factors = torch.tensor(latent_format.latent_rgb_factors)
        self._bias = torch.tensor(latent_format.latent_rgb_factors_bias)

    def __call__(self, block: Block) -> Tensor:
        return self.colours(block.latents)

    def colours(self, latents: Tensor) -> Tensor:
        """Maps normalised latents `[1, C, F, h, w]` to frames `[F, h, w, 3]` uint8."""
        x = latents[0].float().cpu().permute(1, 2, 3, 0) @ self._factors + self._bias
        return x.add(1).mul(127.5).clamp(0, 255).to(torch.uint8)
