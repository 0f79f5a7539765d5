"""Checkpoints of a training run: directories of `torch.distributed.checkpoint`, so that an interrupted run resumes.

    FOLDER/step-00000100/.metadata, __0_0.distcp    the tensors
    FOLDER/step-00000100/state.json                 numbers and nesting, and the sizes and digests of the files above
    FOLDER/step-00000100-3/…                        of a run that was stopped within a step, after 3 parts of it

A directory is written under another name, synchronised with the disk and renamed, so that one with its final name is
complete. Reading one unpickles its `.metadata`: resume checkpoints of your own only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ..units import MB, format_bytes
from .workers import ALONE, Workers

FORMAT = "longlive-training-1"
STATE_FILE = "state.json"
PREFIX, PARTIAL = "step-", ".partial"
NAME = re.compile(rf"{PREFIX}(\d+)(?:-(\d+))?")
SAVE_WARNING = "torch.distributed is disabled"

# Number of finished steps, and number of finished parts of the step that follows.
Place = tuple[int, int]


class DiskFullError(OSError):
    """A file of a training run cannot be written. The checkpoints before it are kept."""


class BadCheckpointError(ValueError):
    """A checkpoint is damaged or incomplete."""


@dataclass
class Checkpoints:
    """The checkpoints of one run in `folder`; the newest `keep` of them are kept.

    writers: the processes that write a checkpoint together, each its shards of the tensors; a checkpoint is read whole
    by any number of them. notes: what was found and passed over, such as a damaged checkpoint.
    """

    folder: Path
    keep: int = 2
    writers: Workers = ALONE
    notes: list[str] = field(default_factory=list[str])

    def places(self) -> list[Place]:
        """Returns the places of all checkpoints, complete or damaged, in ascending order."""
        matches = [NAME.fullmatch(path.name) for path in self.folder.glob(f"{PREFIX}*") if path.is_dir()]
        return sorted((int(m[1]), int(m[2] or 0)) for m in matches if m is not None)

    def path(self, place: Place) -> Path:
        """Returns the directory of a place."""
        step, parts = place
        return self.folder / (f"{PREFIX}{step:08}" + (f"-{parts}" if parts else ""))

    def load(self) -> dict[str, Any] | None:
        """Returns the state of the newest checkpoint that is not damaged; None if there is no checkpoint.

        Raises BadCheckpointError if all checkpoints are damaged.
        """
        places = self.places()
        for place in reversed(places):
            try:
                return read_checkpoint(self.path(place))
            except BadCheckpointError as error:
                self.notes.append(str(error))
        if places:
            raise BadCheckpointError(
                f"no checkpoint in {self.folder} can be read ({self.notes[-1]}); delete them to start from step 0"
            )
        return None

    def save(self, place: Place, state: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of a place and removes the oldest ones beyond `keep`; returns its directory.

        state: nested dictionaries, lists and tuples of tensors, numbers, texts and None. Raises DiskFullError.
        """
        target = self.path(place)
        tensors: dict[str, Tensor] = {}
        tree = _pack(state, "state", tensors)
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        partial = target.with_name(target.name + PARTIAL)
        with disk_errors(target, size):
            try:
                self.writers.call_in_first(lambda: self._begin(partial, size))
                with _quiet():
                    save(tensors, storage_writer=FileSystemWriter(partial), no_dist=self.writers.count == 1)
                self.writers.call_in_first(lambda: self._finish(partial, tree, place))
            except BaseException:
                if self.writers.first:
                    shutil.rmtree(partial, ignore_errors=True)
                raise
        return target

    def _begin(self, partial: Path, size: int) -> None:
        """Makes the directory that a checkpoint is written to. Raises OSError if the disk has too little space."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_partials()
        check_space(partial, size)
        partial.mkdir()

    def _finish(self, partial: Path, tree: Any, place: Place) -> None:  # noqa: ANN401
        """Completes a directory that has all tensors, gives it its name, and removes the oldest checkpoints."""
        _write_header(partial, tree)
        target = self.path(place)
        if target.exists():
            _remove(target)
        os.replace(partial, target)
        _synchronise(self.folder)
        older = [other for other in self.places() if other < place]
        for other in older[: max(0, len(older) - self.keep + 1)]:
            _remove(self.path(other))

    def _remove_partials(self) -> None:
        for path in self.folder.glob(f"{PREFIX}*{PARTIAL}"):
            shutil.rmtree(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the state that `Checkpoints.save` wrote to a directory, with tensors on the CPU.

    Raises BadCheckpointError if it is incomplete, damaged or no checkpoint of this program.
    """
    try:
        header = json.loads((path / STATE_FILE).read_text("utf-8"))
        if header["format"] != FORMAT:
            raise BadCheckpointError(f"{path} is not a checkpoint of this version (format {header['format']!r})")
        for name, (size, digest) in header["files"].items():
            if (path / name).stat().st_size != size or _digest(path / name) != digest:
                raise BadCheckpointError(f"{path} is damaged: {name} differs from what was written")
        reader = FileSystemReader(path)
        specs = reader.read_metadata().state_dict_metadata
        tensors = {
            k: torch.empty(s.size, dtype=s.properties.dtype)
            for k, s in specs.items()
            if isinstance(s, TensorStorageMetadata)
        }
        if tensors:
            with _quiet():
                load(tensors, storage_reader=reader, no_dist=True)
        return cast(dict[str, Any], _unpack(header["tree"], tensors))
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError, CheckpointException) as error:
        raise BadCheckpointError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def check_space(path: Path, size: int) -> None:
    """Raises OSError if the disk of `path` has less than `size` bytes free."""
    free = shutil.disk_usage(_existing(path)).free
    if free < size:
        raise OSError(errno.ENOSPC, f"the disk has {format_bytes(free)} free")


@contextmanager
def disk_errors(path: Path, size: int) -> Generator[None, None, None]:
    """Turns the errors of a full disk into one DiskFullError that says where and how much is needed."""
    try:
        yield
    except (OSError, RuntimeError, CheckpointException) as error:
        # torch reports a stream that takes no more bytes as a RuntimeError, and DCP wraps that.
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        if isinstance(cause, torch.distributed.DistError):
            raise  # another process is gone
        why = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        raise DiskFullError(
            f"cannot write {path} ({format_bytes(size)}): {why}; free disk space or choose another folder, "
            "and start again: the run resumes at its last checkpoint, which is kept"
        ) from error


def _write_header(folder: Path, tree: Any) -> None:  # noqa: ANN401
    files = {path.name: [path.stat().st_size, _digest(path)] for path in sorted(folder.iterdir())}
    with (folder / STATE_FILE).open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "files": files, "tree": tree}, file)
        file.flush()
        os.fsync(file.fileno())
    _synchronise(folder)


def _remove(path: Path) -> None:
    """Removes a directory; its name changes first, so that a removal that is interrupted leaves no half checkpoint."""
    doomed = path.with_name(path.name + ".removed" + PARTIAL)
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Returns `value` as JSON, and adds its tensors to `tensors` by name. Keys of dictionaries keep their types."""
    if isinstance(value, Tensor):
        while name in tensors:  # {"a.b": …, "a": {"b": …}}
            name += "'"
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {"dict": [[key, _pack(item, f"{name}.{key}", tensors)] for key, item in items]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        items = cast(list[Any], value)
        return {kind: [_pack(item, f"{name}.{i}", tensors) for i, item in enumerate(items)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: a checkpoint stores tensors, numbers, texts and None")


def _unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = cast(dict[str, Any], tree).items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in value}
    items = [_unpack(item, tensors) for item in value]
    return items if kind == "list" else tuple(items)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(16 * MB):
            digest.update(part)
    return digest.hexdigest()


def _synchronise(folder: Path) -> None:
    """Waits until the names of a folder's files are on the disk. Windows cannot open folders and does this itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Silences DCP's warning that there is no process group, which is on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=SAVE_WARNING)
        yield
