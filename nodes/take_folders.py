"""Takes in the host's output folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from ..longlive_core.take import Take
from ..longlive_core.take.take import FILE, SUFFIX
from .file_prefix import output_path


def list_takes() -> list[str]:
    """Lists the takes below the output folder, such as `takes/LongLive_00001.take`, newest first."""
    output = Path(folder_paths.get_output_directory())
    folders = sorted(_take_folders(output), key=lambda folder: (folder / FILE).stat().st_mtime, reverse=True)
    return [folder.relative_to(output).as_posix() for folder in folders]


def take_folder(name: str) -> Path:
    """Returns the folder of a take by its name. Raises ValueError if it is outside the output folder."""
    output = Path(folder_paths.get_output_directory()).resolve()
    folder = (output / name).resolve()
    if not folder.is_relative_to(output):
        raise ValueError(f"{name} is not in the output folder: pick a take from the list")
    return folder


def check_take(name: str | None) -> bool:
    """Returns True. Raises ValueError or OSError for a take that cannot be read. name: None if it comes over a wire."""
    if name is None:
        return True
    try:
        Take.load(take_folder(name))
    except FileNotFoundError as error:
        message = f"{name} is not in the output folder; refresh the list (R), or make it with LongLive Save Take"
        raise ValueError(message) from error
    return True


def take_digest(name: str) -> str:
    """Returns a digest of `take.json`, which changes when the take is edited but not when blocks are added."""
    try:
        return hashlib.sha256((take_folder(name) / FILE).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""


def takes_under(prefix: str, width: int, height: int) -> tuple[list[Path], Path]:
    """Returns the takes under a prefix, newest first, and the folder of the next one.

    width, height: in pixels, for `%width%` and `%height%` in the prefix. Raises ValueError as `check_prefix`.
    """
    folder, name, *_ = output_path("name_prefix", prefix, width, height)
    pattern = re.compile(rf"{re.escape(name)}_(\d+){re.escape(SUFFIX)}")
    takes = sorted(
        (int(match[1]), path) for path in Path(folder).iterdir() if (match := pattern.fullmatch(path.name)) is not None
    )
    number = takes[-1][0] + 1 if takes else 1
    return [path for _, path in reversed(takes)], Path(folder) / f"{name}_{number:05}{SUFFIX}"


def _take_folders(output: Path) -> Iterator[Path]:
    """Yields all takes below a folder, but none inside another take."""
    for folder, below, files in os.walk(output):
        if FILE in files:
            below.clear()
            yield Path(folder)
