"""The files of a film that is a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

SOUND = "sound.wav"
# What is not whole yet; the next film in the same folder removes it.
PARTIAL = ".partial"
OURS = re.compile(rf"\d{{6,}}\.png|{re.escape(SOUND)}|.*{re.escape(PARTIAL)}")


def picture(folder: Path, number: int) -> Path:
    """Where frame `number`, counted from 0, lies."""
    return folder / f"{number + 1:06}.png"


def numbered(folder: Path) -> Iterator[Path]:
    """The pictures from the first up to the first that is missing."""
    for number in count():
        path = picture(folder, number)
        if not path.is_file():
            return
        yield path
