"""Opens checkpoint files: reads names, shapes and dtypes at once, and tensors on request."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

MAX_HEADER_BYTES = 100_000_000

# A memory-mapped .pt file is mapped anew after this many bytes were read.
REMAP_BYTES = 1_000_000_000

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

# Keys that hold the transformer in official .pt files, level by level; the first that exists is used.
WRAPPER_KEYS = (("generator", "generator_ema", "generator_lora"), ("model",))
LORA_WRAPPER_KEYS = (("generator_lora",),)

# First bytes of other files that users take for checkpoints.
FOREIGN_FILES = {
    b"GGUF": "a GGUF file; this loader takes safetensors",
    b"version https://git-lfs": "a git-lfs pointer, not the weights themselves; run `git lfs pull`",
    b"<!DOCTYPE": "a web page, probably a download that needed a login; download it again",
    b"<html": "a web page, probably a download that needed a login; download it again",
}


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
    """

    path: Path
    specs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    read: Callable[[Iterable[str]], dict[str, Tensor]]
    wrapper: str = ""


def open_source(path: Path | str, wrappers: tuple[tuple[str, ...], ...] = WRAPPER_KEYS) -> TensorSource:
    """Opens a safetensors file or a .pt file; the content decides which of them it is, not the name.

    A .pt file is loaded with `weights_only=True`, so that no code in it can run.
    wrappers: keys of a .pt file that lead to the tensors, level by level.
    Raises FileNotFoundError, IsADirectoryError, or CheckpointError for a file that is truncated or of another kind,
    and for a pickle that holds more than tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"checkpoint {path} is a folder; name the safetensors file in it")
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} does not exist; check the path")
    with path.open("rb") as file:
        start = file.read(32)
    if len(start) < 8:
        raise CheckpointError(f"checkpoint {path} has only {len(start)} bytes: it is empty or truncated; copy it again")
    for magic, description in FOREIGN_FILES.items():
        if start.startswith(magic):
            raise CheckpointError(f"checkpoint {path} is {description}")
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return _open_pickle(path, wrappers, zipped=start.startswith(b"PK"))
    return _open_safetensors(path)


def _open_safetensors(path: Path) -> TensorSource:
    header, data_size = _read_header(path)
    metadata = cast("dict[str, str]", header.pop("__metadata__", {}))
    try:
        specs = {name: TensorSpec(str(v["dtype"]), tuple(map(int, v["shape"]))) for name, v in header.items()}
        expected = max((int(v["data_offsets"][1]) for v in header.values()), default=0)
    except (KeyError, TypeError, ValueError, IndexError) as error:
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

    return TensorSource(path, specs, metadata, read)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the JSON header of a safetensors file, and the number of bytes after it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = file.read(length) if length <= MAX_HEADER_BYTES else b""
    if not text.startswith(b"{"):
        raise CheckpointError(f"checkpoint {path} is not a safetensors file, nor a .pt file; check the download")
    if len(text) < length:
        raise CheckpointError(
            f"checkpoint {path} is truncated: it has {len(text):,} of {length:,} bytes of its header; copy it again"
        )
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} has a damaged header ({error}); copy it again") from error
    return header, size - 8 - length


def _open_pickle(path: Path, wrappers: tuple[tuple[str, ...], ...], *, zipped: bool) -> TensorSource:
    wrapper, tensors = _load_pickle(path, wrappers, zipped)
    specs = {name: TensorSpec(dtype_name(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()}
    if not zipped:  # files of torch < 1.6 cannot be mapped, so all tensors are in memory
        return TensorSource(path, specs, {}, lambda names: {name: tensors[name] for name in names}, wrapper)
    mapped = _MappedPickle(tensors, lambda: _load_pickle(path, wrappers, zipped)[1])
    return TensorSource(path, specs, {}, mapped.read, wrapper)


def _load_pickle(path: Path, wrappers: tuple[tuple[str, ...], ...], zipped: bool) -> tuple[str, dict[str, Tensor]]:
    """Returns the outermost wrapper key, and the tensors."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} is a pickle that holds more than tensors and could run foreign code; it was refused. "
            "Convert it to safetensors if you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"checkpoint {path} is truncated or not a .pt file ({reason}); copy it again") from error
    wrapper, state = _unwrap(content, wrappers)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(state):
        raise CheckpointError(
            f"checkpoint {path} has no dictionary of tensors where LongLive's .pt files have one; check the download"
        )
    return wrapper, tensors


class _MappedPickle:
    """Reads the tensors of a .pt file that is mapped into memory.

    The pages that were read count as memory of this process as long as the file is mapped. The file is therefore
    mapped anew after `REMAP_BYTES`; a tensor that is still in use keeps its own map alive.
    """

    def __init__(self, tensors: dict[str, Tensor], load: Callable[[], dict[str, Tensor]]) -> None:
        self._tensors, self._load = tensors, load
        self._bytes_read = 0

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        if self._bytes_read > REMAP_BYTES:
            self._tensors, self._bytes_read = self._load(), 0
        tensors = {name: self._tensors[name] for name in names}
        self._bytes_read += sum(tensor.nbytes for tensor in tensors.values())
        return tensors


def _unwrap(content: object, wrappers: tuple[tuple[str, ...], ...]) -> tuple[str, dict[str, object]]:
    """Returns the outermost wrapper key, empty without one, and the innermost dictionary, empty if there is none."""
    wrapper = ""
    for keys in wrappers:
        if isinstance(content, dict):
            outer = cast("dict[str, object]", content)
            key = next((key for key in keys if isinstance(outer.get(key), dict)), "")
            wrapper, content = wrapper or key, outer.get(key, content)
    return wrapper, cast("dict[str, object]", content) if isinstance(content, dict) else {}


def dtype_name(dtype: torch.dtype) -> str:
    """Returns safetensors' name of a dtype, or torch's name if safetensors has none."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype).removeprefix("torch."))
