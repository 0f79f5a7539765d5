"""Opens .pt files: finds the tensors in their dictionaries, and reads them from a map of the file."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from .names import summarize_names
from .tensor_source import CheckpointError, TensorSource, TensorSpec, dtype_name

# A memory-mapped .pt file is mapped anew after this many bytes were read.
REMAP_BYTES = 1_000_000_000


def open_pickle(path: Path, wrappers: tuple[str, ...], *, zipped: bool) -> TensorSource:
    """Opens a .pt file with `weights_only=True`, so that no code in it can run.

    wrappers: keys that lead to the tensors, in the order of preference, on every level. zipped: whether the file is of
    torch >= 1.6. Raises CheckpointError for a truncated file, and for a pickle that holds more than tensors.
    """
    wrapper, tensors = _load_pickle(path, wrappers, zipped)
    specs = {name: TensorSpec(dtype_name(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()}
    if not _can_be_mapped(path, zipped):
        return TensorSource(path, specs, {}, lambda names: {name: tensors[name] for name in names}, wrapper, (path,))
    mapped = _MappedPickle(tensors, lambda: _load_pickle(path, wrappers, zipped)[1])
    return TensorSource(path, specs, {}, mapped.read, wrapper, (path,))


def _load_pickle(path: Path, wrappers: tuple[str, ...], zipped: bool) -> tuple[str, dict[str, Tensor]]:
    """Returns the outermost wrapper key, and the tensors."""
    try:
        with path.open("rb") as file:
            mapped = _can_be_mapped(path, zipped)
            content = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
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
    if not tensors or not all(isinstance(value, Tensor) or _is_note(value) for value in state.values()):
        raise CheckpointError(
            f"checkpoint {path} has no dictionary of tensors at its top or under one of {', '.join(wrappers)} "
            f"(its keys: {summarize_names(map(str, state))}); check the download"
        )
    return wrapper, tensors


def _can_be_mapped(path: Path, zipped: bool) -> bool:
    """Whether torch maps the file; else its tensors are in memory. It takes the word of a name for a file's kind."""
    return zipped and path.suffix != ".safetensors"


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


def _unwrap(content: object, wrappers: tuple[str, ...]) -> tuple[str, dict[str, object]]:
    """Returns the outermost wrapper key, empty without one, and the innermost dictionary, empty if there is none."""
    wrapper = ""
    while isinstance(content, dict):
        outer = cast("dict[str, object]", content)
        key = next((key for key in wrappers if isinstance(outer.get(key), dict)), None)
        if key is None:
            return wrapper, outer
        wrapper, content = wrapper or key, outer[key]
    return wrapper, {}


def _is_note(value: object) -> bool:
    """Whether a value beside the tensors is a step, a name or a setting, which means nothing for the weights."""
    if isinstance(value, dict):
        return all(map(_is_note, cast("dict[object, object]", value).values()))
    if isinstance(value, list | tuple):
        return all(map(_is_note, cast("list[object]", value)))
    return value is None or isinstance(value, str | int | float)
