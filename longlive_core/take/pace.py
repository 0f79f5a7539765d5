"""The pace of a take's newest run, for estimates; beside `take.json`, which changes only when the take is edited."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

from .block_file import write_text

FILE = "pace.json"


def save_pace(folder: Path, seconds: float) -> None:
    """Writes the seconds that a block of the take took. Raises OSError."""
    text = json.dumps({"seconds_per_block": round(seconds, 4)}) + "\n"
    write_text(folder / FILE, text)


def load_pace(folder: Path) -> float | None:
    """Returns the seconds a block measured last, or None if no run was measured."""
    try:
        seconds = json.loads((folder / FILE).read_text("utf-8"))["seconds_per_block"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(seconds) if isinstance(seconds, int | float) and isfinite(seconds) and seconds > 0 else None
