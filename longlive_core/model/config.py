"""Hyper-parameters of a Wan transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from math import prod
from typing import Any

from torch import Tensor

from ..types import SPACE_FACTOR


@dataclass(frozen=True, slots=True)
class WanConfig:
    """Hyper-parameters of a causal Wan2.2 transformer, named as in its checkpoints.

    Raises ValueError if they contradict each other.
    """

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
            raise ValueError(f"freq_dim {self.freq_dim} is odd; half of it must be cosines and half sines")
        if self.patch[0] != 1:
            raise ValueError(f"patch {self.patch} must be 1 in time, because each latent frame has its own timestep")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens in a latent frame. Raises ValueError if it is not a multiple of the patch."""
        _, down, across = self.patch
        if height <= 0 or width <= 0 or height % down or width % across:
            raise ValueError(
                f"latent size {height}x{width} (h x w) is not a positive multiple of the patch {down}x{across}: "
                f"pixels must be multiples of {SPACE_FACTOR * down}x{SPACE_FACTOR * across}"
            )
        return height // down, width // across

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> WanConfig:
        """Reads a description that names every field, such as the metadata of a checkpoint or a recorded run.

        Raises ValueError, which lists missing and unknown names.
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
        """Infers the hyper-parameters from the shapes of a state dict, whose blocks may be quantised.

        The number of heads and the text length do not follow from shapes; by default a head has 128 channels, as in
        Wan. Raises ValueError, which names the missing tensor, if this is not a Wan transformer.
        """
        patch = _shape(state, "patch_embedding.weight")
        kernel = (patch[2], patch[3], patch[4])
        dim = patch[0]
        heads = num_heads if num_heads is not None else max(1, dim // 128)
        layers = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=-1)
        channels = _shape(state, "head.head.weight")[0] // prod(kernel)
        if channels != patch[1]:
            raise ValueError(
                f"the model takes {patch[1]} latent channels and returns {channels}, but a LongLive model has no extra "
                "input channels; use a LongLive checkpoint"
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
        raise ValueError(f"tensor '{key}' is missing, so this is not the state dict of a Wan transformer")
    return tuple(state[key].shape)


WAN22_TI2V_5B = WanConfig(
    dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, freq_dim=256, text_dim=4096, text_len=512
)
