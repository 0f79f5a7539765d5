"""Removes takes from the disk."""

from __future__ import annotations

import shutil

from .pace import FILE as PACE
from .take import (
    AHEAD,
    CAST,
    CONTINUITY,
    FILE,
    FILM_FILE,
    FILM_INDEX,
    SNAPSHOTS,
    SOUND,
    SOURCES,
    WORKFLOW,
    Take,
    bytes_in,
)

# What a take's folder holds.
FOLDERS = ("shots", SNAPSHOTS, FILM_INDEX, AHEAD, CAST)
FILES = (SOUND, PACE, FILM_FILE, WORKFLOW, SOURCES, CONTINUITY)


def remove(take: Take) -> int:
    """Removes a take, but neither its film nor files in its folder that are not a take's; returns the bytes freed.

    The caller holds the `TakeLock`, whose release removes the folder if nothing else is in it. Raises OSError; what is
    left is no take then.
    """
    before = bytes_in(take.folder)
    (take.folder / FILE).unlink()
    take.remove_partial_files()
    for name in FOLDERS:
        if (take.folder / name).is_dir():
            shutil.rmtree(take.folder / name)
    for name in FILES:
        (take.folder / name).unlink(missing_ok=True)
    left = bytes_in(take.folder)
    return before - left
