"""The numbers that make a Wan transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from math import prod
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class WanConfig:
    """Hyper-parameters of a causal Wan2.2 transformer, named as in its checkpoints. Raises ValueError if they clash."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    freq_dim: int
    text_dim: int
    text_len: int
    channels: int = 48
    patch: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.num_heads <= 0 or self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(f"dim {self.dim} does not split into {self.num_heads} heads of an even width")
        if self.freq_dim % 2:
            raise ValueError(f"freq_dim {self.freq_dim} must be even: half of it is cosines, half sines")
        if self.patch[0] != 1:
            raise ValueError(f"patch {self.patch} joins latent frames; timesteps per frame need a patch of 1 in time")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Tokens down and across a latent frame of `height` × `width`. Raises ValueError if the patch does not fit."""
        _, down, across = self.patch
        if height <= 0 or width <= 0 or height % down or width % across:
            raise ValueError(
                f"latent size {height}x{width} (h x w) is not a positive multiple of the patch {down}x{across}: "
                f"pixels must be multiples of {16 * down}x{16 * across}"
            )
        return height // down, width // across

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> WanConfig:
        """From metadata that names every number, such as a checkpoint's or a recorded run's.

        Raises ValueError that lists missing and unknown names.
        """
        known = {field.name: field.default is MISSING for field in fields(cls)}
        missing = [name for name, required in known.items() if required and name not in values]
        unknown = [name for name in values if name not in known]
        if missing or unknown:
            raise ValueError(f"model description: missing {missing}, unknown {unknown}; expected {list(known)}")
        numbers: dict[str, Any] = {**values, "patch": tuple(values.get("patch", (1, 2, 2)))}
        return cls(**numbers)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], *, num_heads: int | None = None, text_len: int = 512
    ) -> WanConfig:
        """Reads what the shapes tell; packed weights are fine, only unpacked ones are asked for their inner width.

        Heads and text length leave no trace in a state dict: heads default to Wan's 128 channels each.
        Raises ValueError that names the missing tensor if this is no Wan transformer.
        """
        patch = _shape(state, "patch_embedding.weight")
        kernel = (patch[2], patch[3], patch[4])
        dim = patch[0]
        heads = num_heads if num_heads is not None else max(1, dim // 128)
        layers = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=-1)
        channels = _shape(state, "head.head.weight")[0] // prod(kernel)
        if channels != patch[1]:
            raise ValueError(
                f"the model takes {patch[1]} latent channels and returns {channels}; LongLive has no extra input "
                "channels, so this is another Wan checkpoint"
            )
        return cls(
            dim=dim,
            ffn_dim=_shape(state, "blocks.0.ffn.0.bias")[0],
            num_heads=heads,
            num_layers=layers,
            freq_dim=_shape(state, "time_embedding.0.weight")[1],
            text_dim=_shape(state, "text_embedding.0.weight")[1],
            text_len=text_len,
            channels=channels,
            patch=kernel,
        )


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(f"tensor '{key}' is missing: this is not the state dict of a Wan transformer")
    return tuple(state[key].shape)


WAN22_TI2V_5B = WanConfig(
    dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, freq_dim=256, text_dim=4096, text_len=512
)
