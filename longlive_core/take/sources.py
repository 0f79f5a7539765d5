"""What the newest film of a take is made from beside its script, as far as a host tells; compared for equality only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .block_file import write_text
from .take import SOURCES


def save_sources(folder: Path, sources: list[Any]) -> None:
    """Stores the sources in the folder of a take, unless it has them already. Raises OSError."""
    if sources != load_sources(folder):
        write_text(folder / SOURCES, json.dumps(sources) + "\n")


def load_sources(folder: Path) -> list[Any] | None:
    """Loads the sources of a take; None if nothing is known."""
    try:
        sources = json.loads((folder / SOURCES).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return sources if isinstance(sources, list) else None
