"""File names in a folder that holds a film as numbered pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

SOUND = "sound.wav"
# The suffix of a file that is still being written; the next film in the same folder deletes it.
PARTIAL = ".partial"
FILM_FILE = re.compile(rf"\d{{6,}}\.png|{re.escape(SOUND)}|.*{re.escape(PARTIAL)}")


def picture_path(folder: Path, number: int) -> Path:
    """Returns the path of frame `number`, counted from 0."""
    return folder / f"{number + 1:06}.png"


def numbered_pictures(folder: Path, start: int = 0) -> Iterator[Path]:
    """Yields the pictures from frame `start` up to the first missing one."""
    return takewhile(Path.is_file, (picture_path(folder, number) for number in count(start)))
