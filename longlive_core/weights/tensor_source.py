"""An open checkpoint: names, shapes and dtypes of its tensors, which are read on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

# safetensors' names of dtypes.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U8": torch.uint8,
    "I32": torch.int32,
}

# Metadata that says how layers are quantised.
QUANTISED = "_quantization_metadata"


class CheckpointError(ValueError):
    """Raised for a file that is not a valid checkpoint; the message names the file, the fault and the remedy."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The dtype, by safetensors' name such as BF16, and the shape of a tensor on disk."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class TensorSource:
    """An open checkpoint: name of each tensor -> its spec, the metadata, and a function that reads tensors by name.

    wrapper: the outermost key that holds the tensors of an official .pt file, such as `generator`; empty without one.
    files: the files that have the tensors, several for a sharded model. safetensors: whether they are safetensors.
    """

    path: Path
    specs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    read: Callable[[Iterable[str]], dict[str, Tensor]]
    wrapper: str = ""
    files: tuple[Path, ...] = ()
    safetensors: bool = False

    @property
    def file_bytes(self) -> int:
        """Size of the files in bytes."""
        return sum(file.stat().st_size for file in self.files)


def dtype_name(dtype: torch.dtype) -> str:
    """Returns safetensors' name of a dtype, or torch's name if safetensors has none."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype).removeprefix("torch."))
