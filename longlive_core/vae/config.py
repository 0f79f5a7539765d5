"""Hyper-parameters of a VAE and the statistics of its latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

from torch import Tensor


@dataclass(frozen=True)
class VAEConfig:
    """Hyper-parameters of a VAE with Wan2.2's topology.

    dim, dec_dim: base widths of encoder and decoder, times `dim_mult` in each stage. temporal_downsample: of each stage
    but the last. mean, std: of each latent channel; they normalise latents for the transformer.
    """

    dim: int = 160
    dec_dim: int = 256
    latent_channels: int = 48
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VAEConfig:
        """Reads the values of a JSON object; lists become tuples. Raises TypeError for an unknown field."""
        fields: dict[str, Any] = {
            name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)

    @classmethod
    def of_decoder(cls, weights: Mapping[str, Tensor]) -> VAEConfig:
        """The configuration of a decoder's weights by Wan's names. Raises KeyError if a name is missing."""
        latent, width = weights["conv2.weight"].shape[0], weights["decoder.head.0.gamma"].shape[0]
        return cls(dec_dim=width, latent_channels=latent)

    @property
    def decoder_reach(self) -> int:
        """The temporal receptive field of the decoder: 40 latent frames before the decoded one, for Wan2.2.

        Decoding that starts so many frames earlier gives the same pixels to the bit.
        """
        # Each causal convolution sees two earlier frames at the frame rate of its stage. At the rate of the latents:
        # the first convolution and two residual blocks of two. Then each stage's residual blocks and upsampling.
        reach, rate = 2.0 + 2 * 4, 1
        for doubles in (*reversed(self.temporal_downsample), False):
            reach += 4 * (self.num_res_blocks + 1) / rate
            if doubles:
                reach += 2 / rate
                rate *= 2
        # The head, and two frames more because the first latent frames of a stream are decoded differently.
        return ceil(reach + 2 / rate) + 2
