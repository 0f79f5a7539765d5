"""A checkpoint file opened but not read: names, shapes and dtypes first, tensors when asked for."""

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
REMAP_BYTES = 1_000_000_000

# safetensors' names of the dtypes that checkpoints have.
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

# Where official .pt files keep the transformer: the first of a level's names that is there is entered.
WRAPPER_KEYS = (("generator", "generator_ema", "generator_lora"), ("model",))
LORA_WRAPPER_KEYS = (("generator_lora",),)

# First bytes of files that are often taken for a checkpoint.
FOREIGN_FILES = {
    b"GGUF": "a GGUF file; this loader takes safetensors",
    b"version https://git-lfs": "a git-lfs pointer, not the weights themselves; run `git lfs pull`",
    b"<!DOCTYPE": "a web page, probably a download that needed a login; download it again",
    b"<html": "a web page, probably a download that needed a login; download it again",
}


class CheckpointError(ValueError):
    """A file that is not the checkpoint it should be; the message names the file, the fault and the remedy."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that is still on disk. `dtype` is safetensors' name for it, such as BF16."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A readable checkpoint: what it holds, and `read(names)` which gives the tensors.

    `table` is the outermost table of an official .pt that the tensors were in, such as `generator`; else it is empty.
    """

    path: Path
    specs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    read: Callable[[Iterable[str]], dict[str, Tensor]]
    table: str = ""


def open_source(path: Path | str, wrappers: tuple[tuple[str, ...], ...] = WRAPPER_KEYS) -> TensorSource:
    """Looks into a safetensors file, or a .pt file (with `weights_only=True`, so no code in it can run).

    The content decides, not the name; of a .pt, the table that `wrappers` lead to. Raises FileNotFoundError,
    IsADirectoryError, or CheckpointError where the file is truncated, of another kind, or a pickle that holds more
    than tensors.
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
    for magic, what in FOREIGN_FILES.items():
        if start.startswith(magic):
            raise CheckpointError(f"checkpoint {path} is {what}")
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return _open_pickle(path, wrappers, zipped=start.startswith(b"PK"))
    return _open_safetensors(path)


def _open_safetensors(path: Path) -> TensorSource:
    header, data_size = _header(path)
    metadata = cast("dict[str, str]", header.pop("__metadata__", {}))
    try:
        specs = {name: TensorSpec(str(v["dtype"]), tuple(map(int, v["shape"]))) for name, v in header.items()}
        expected = max((int(v["data_offsets"][1]) for v in header.values()), default=0)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"checkpoint {path} has a damaged header ({error!r}); copy it again") from error
    if data_size < expected:
        raise CheckpointError(
            f"checkpoint {path} is truncated: {data_size:,} of {expected:,} bytes of tensors are there; copy it again"
        )

    def read(names: Iterable[str]) -> dict[str, Tensor]:
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise CheckpointError(f"checkpoint {path} cannot be read ({error}); copy it again") from error

    return TensorSource(path, specs, metadata, read)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file, and how many bytes of tensors follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = file.read(length) if length <= MAX_HEADER_BYTES else b""
    if not text.startswith(b"{"):
        raise CheckpointError(f"checkpoint {path} is not a safetensors file (nor a .pt); check what was downloaded")
    if len(text) < length:
        raise CheckpointError(
            f"checkpoint {path} is truncated: {len(text):,} of {length:,} bytes of its header are there; copy it again"
        )
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} has a damaged header ({error}); copy it again") from error
    return header, size - 8 - length


def _open_pickle(path: Path, wrappers: tuple[tuple[str, ...], ...], *, zipped: bool) -> TensorSource:
    entered, tensors = _load_pickle(path, wrappers, zipped)
    specs = {name: TensorSpec(dtype_name(v.dtype), tuple(v.shape)) for name, v in tensors.items()}
    if not zipped:  # the old format cannot be mapped: all of it is in memory
        return TensorSource(path, specs, {}, lambda names: {name: tensors[name] for name in names}, entered)
    mapped = _MappedPickle(tensors, lambda: _load_pickle(path, wrappers, zipped)[1])
    return TensorSource(path, specs, {}, mapped.read, entered)


def _load_pickle(path: Path, wrappers: tuple[tuple[str, ...], ...], zipped: bool) -> tuple[str, dict[str, Tensor]]:
    """The outermost table entered, and the tensors in the innermost."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} is a pickle that holds more than tensors, and loading it could run foreign code: "
            "refused; save it as safetensors where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"checkpoint {path} is truncated or no .pt ({reason}); copy it again") from error
    entered, table = _unwrap(content, wrappers)
    tensors = {name: value for name, value in table.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(table):
        raise CheckpointError(f"checkpoint {path} holds no table of tensors where LongLive's .pt files have one")
    return entered, tensors


class _MappedPickle:
    """The tensors of a .pt whose file is mapped into memory.

    Pages that were read count as this process's memory while the map is there, so it is made anew every `REMAP_BYTES`
    bytes; tensors that were given keep the map they lie in.
    """

    def __init__(self, tensors: dict[str, Tensor], load: Callable[[], dict[str, Tensor]]) -> None:
        self._tensors, self._load = tensors, load
        self._read = 0

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        if self._read > REMAP_BYTES:
            self._tensors, self._read = self._load(), 0
        found = {name: self._tensors[name] for name in names}
        self._read += sum(tensor.nbytes for tensor in found.values())
        return found


def _unwrap(content: object, wrappers: tuple[tuple[str, ...], ...]) -> tuple[str, dict[str, object]]:
    """The outermost name entered, and the innermost table of an official .pt; empty where there is none."""
    entered = ""
    for names in wrappers:
        if isinstance(content, dict):
            table = cast("dict[str, object]", content)
            name = next((name for name in names if isinstance(table.get(name), dict)), "")
            entered, content = entered or name, table.get(name, content)
    return entered, cast("dict[str, object]", content) if isinstance(content, dict) else {}


def dtype_name(dtype: torch.dtype) -> str:
    """safetensors' name of a dtype; torch's own where it has none."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype).removeprefix("torch."))
