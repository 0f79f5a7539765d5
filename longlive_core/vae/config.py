"""Hyper-parameters of a VAE and the statistics of its latents."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, cast


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


# Per-channel statistics of the released Wan2.2 VAE.
WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.157, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.052, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip
WAN22_VAE = VAEConfig(mean=WAN22_MEAN, std=WAN22_STD)
