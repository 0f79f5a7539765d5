"""Videos to train on, in the host's input folder."""

from __future__ import annotations

import hashlib
import os.path
from pathlib import Path

import folder_paths

from ..longlive_core.training.clip_files import VIDEOS, ClipFile, read_clip_files

LIST = ".jsonl"


def data_sets() -> list[str]:
    """Folders with videos, and JSONL files, below the input folder, such as `fox` and `fox/clips.jsonl`."""
    root = Path(folder_paths.get_input_directory())
    found: set[Path] = set()
    for path in root.rglob("*"):
        suffix = path.suffix.lower()
        if suffix == LIST:
            found.add(path)
        elif suffix in VIDEOS and path.parent != root:
            found.add(path.parent)
    return sorted(path.relative_to(root).as_posix() for path in found)


def data_path(name: str) -> Path:
    """Returns the path of a data set. Raises ValueError if it is not below the input folder."""
    root = os.path.abspath(folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(root, name))
    if not path.startswith(root + os.sep):
        raise ValueError(f"data {name!r} is not in the input folder: put the videos into a folder in {root}")
    return Path(path)


def read_data(name: str) -> tuple[ClipFile, ...]:
    """Reads the captions of a data set; no video is opened.

    Raises ValueError or OSError as `read_clip_files`, and ValueError for a video outside the input folder.
    """
    files = read_clip_files(data_path(name))
    root = os.path.abspath(folder_paths.get_input_directory()) + os.sep
    for file in files:
        if not os.path.abspath(file.path).startswith(root):
            raise ValueError(f"data {name}: {file.path} is outside the input folder: move it into {root}")
    return files


def data_fingerprint(name: str) -> str:
    """Changes when a file of the data set is added, removed or written."""
    try:
        path = data_path(name)
        folder = path if path.is_dir() else path.parent
        files = sorted((one.name, one.stat().st_mtime_ns, one.stat().st_size) for one in folder.iterdir())
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(repr(files).encode()).hexdigest()
