"""Opens safetensors files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .tensor_source import CheckpointError, TensorSource, TensorSpec

MAX_HEADER_BYTES = 100_000_000


def open_safetensors(path: Path) -> TensorSource:
    """Opens a safetensors file. Raises CheckpointError for a damaged or truncated one."""
    text, data_size = _read_header(path)
    try:
        header: dict[str, Any] = json.loads(text)
        metadata = {key: str(text) for key, text in cast("dict[str, Any]", header.pop("__metadata__", {})).items()}
        specs = {name: TensorSpec(str(v["dtype"]), tuple(map(int, v["shape"]))) for name, v in header.items()}
        expected = max((int(v["data_offsets"][1]) for v in header.values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"checkpoint {path} has a damaged header ({error!r}); copy it again") from error
    if data_size < expected:
        raise CheckpointError(
            f"checkpoint {path} is truncated: it has {data_size:,} of {expected:,} bytes of tensors; copy it again"
        )

    def read(names: Iterable[str]) -> dict[str, Tensor]:
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise CheckpointError(f"checkpoint {path} cannot be read ({error}); copy it again") from error

    return TensorSource(path, specs, metadata, read, files=(path,), safetensors=True)


def _read_header(path: Path) -> tuple[bytes, int]:
    """Returns the JSON text of a safetensors file's header, and the number of bytes after it."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = file.read(length) if length <= MAX_HEADER_BYTES else b""
    if not text.startswith(b"{"):
        raise CheckpointError(f"checkpoint {path} is not a safetensors file, nor a .pt file; check the download")
    if len(text) < length:
        raise CheckpointError(
            f"checkpoint {path} is truncated: it has {len(text):,} of {length:,} bytes of its header; copy it again"
        )
    return text, path.stat().st_size - 8 - length
