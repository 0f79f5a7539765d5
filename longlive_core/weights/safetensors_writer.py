"""Writes a safetensors file tensor by tensor: first the header, then each tensor at its offset."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .names import summarize_names
from .tensor_source import DTYPES, TensorSpec, dtype_name

Specs = Mapping[str, TensorSpec]

# The longest name of a file, on all common file systems.
MAX_NAME_BYTES = 255


@contextmanager
def replace_when_complete(target: Path, *, overwrite_part: bool = False) -> Generator[Path, None, None]:
    """Yields `<name>.part` beside `target` to write to, so that an incomplete file never has the name of `target`.

    The part is renamed to `target` at the end of the body, and removed if the body fails or is interrupted. A link
    stays a link: what it points to is replaced.

    overwrite_part: write over a part that exists, which a process that was killed has left. It is for callers that know
    that no other process writes the file; without it, FileExistsError is raised.
    """
    target = Path(os.path.realpath(target))
    part = target.with_name(target.name + ".part")
    if len(os.fsencode(part.name)) > MAX_NAME_BYTES:
        part = target.with_name(sha256(os.fsencode(target.name)).hexdigest()[:16] + ".part")
    try:
        part.open("wb" if overwrite_part else "xb").close()
    except FileExistsError as error:
        raise FileExistsError(
            f"{part} exists: another conversion is writing it, or one was killed; delete it if no conversion is running"
        ) from error
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def file_size(specs: Specs, metadata: Mapping[str, str]) -> int:
    """Returns the size in bytes of the file that `write_safetensors` writes."""
    return len(_lay_out(specs, metadata)[0]) + sum(spec.nbytes for spec in specs.values())


def write_safetensors(
    path: Path, specs: Specs, metadata: Mapping[str, str], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Writes a file with exactly the tensors of `specs`.

    tensors: yields each tensor once, on the CPU, in any order. One tensor is released before the next is requested.
    Raises ValueError for a tensor that differs from its spec or comes twice, and for missing tensors.
    """
    header, missing = _lay_out(specs, metadata)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(spec.nbytes for spec in specs.values()))
        for name, tensor in tensors:
            spec = TensorSpec(dtype_name(tensor.dtype), tuple(tensor.shape))
            if name not in missing or spec != specs[name]:
                raise ValueError(f"{path.name}: tensor '{name}' {spec} differs from the header, or came twice")
            file.seek(len(header) + missing.pop(name))
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del tensor  # or the loop variable would hold it while the next tensor is made
    if missing:
        raise ValueError(f"{path.name}: {len(missing)} tensors are missing: {summarize_names(missing)}")


def _lay_out(specs: Specs, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Returns the encoded header, and the offset of each tensor from the end of the header.

    Wide dtypes come first, so that each tensor is aligned to its dtype, as readers that map the file require.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(specs, key=lambda name: -DTYPES[specs[name].dtype].itemsize):
        spec = specs[name]
        offsets[name], end = end, end + spec.nbytes
        header[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [offsets[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets
