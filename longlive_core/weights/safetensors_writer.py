"""A safetensors file written tensor by tensor: the header first, then each tensor where the header says it lies."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .names import summarize_names
from .tensor_source import DTYPES, TensorSpec, dtype_name

Specs = Mapping[str, TensorSpec]


@contextmanager
def replace_when_complete(target: Path) -> Generator[Path, None, None]:
    """Gives `<name>.part` beside `target` to write to. It becomes `target` when the body ends, and is removed when the
    body fails or is interrupted, so that a half file never has the real name.

    Raises FileExistsError where the part is there already.
    """
    part = target.with_name(target.name + ".part")
    try:
        part.open("xb").close()
    except FileExistsError as error:
        raise FileExistsError(
            f"{part} is there: another conversion is writing it, or one was killed; if none runs, delete it"
        ) from error
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def file_size(specs: Specs, metadata: Mapping[str, str]) -> int:
    """The bytes of the file that `write_safetensors` makes."""
    return len(_header(specs, _offsets(specs), metadata)) + sum(spec.nbytes for spec in specs.values())


def write_safetensors(
    path: Path, specs: Specs, metadata: Mapping[str, str], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Writes a file that holds exactly `specs`. `tensors` gives each of them once, on the CPU, in any order; a tensor
    is dropped before the next is asked for.

    Raises ValueError for a tensor that is not as its spec says, and for tensors that did not come.
    """
    offsets = _offsets(specs)
    header = _header(specs, offsets, metadata)
    left = dict(offsets)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(spec.nbytes for spec in specs.values()))
        for name, tensor in tensors:
            found = TensorSpec(dtype_name(tensor.dtype), tuple(tensor.shape))
            if name not in left or found != specs[name]:
                raise ValueError(f"{path.name}: tensor '{name}' {found} was not announced as such, or came twice")
            file.seek(len(header) + left.pop(name))
            file.write(_bytes(tensor))
            del tensor  # else the loop would hold it while the next one is made
    if left:
        raise ValueError(f"{path.name}: {len(left)} tensors did not come: {summarize_names(left)}")


def _offsets(specs: Specs) -> dict[str, int]:
    """Where each tensor begins, after the header. Wide dtypes come first: readers map them, and need them aligned."""
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(specs, key=lambda name: -DTYPES[specs[name].dtype].itemsize):
        offsets[name] = end
        end += specs[name].nbytes
    return offsets


def _header(specs: Specs, offsets: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, start in offsets.items():
        spec = specs[name]
        table[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [start, start + spec.nbytes]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
