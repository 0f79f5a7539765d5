"""Numbered folders of runs: the same settings find their run again, other settings begin a new one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

SETTINGS_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run. changed: names of the settings in which it differs from the run before it."""

    path: Path
    changed: tuple[str, ...] = ()


def find_run(
    parent: Path, name: str, settings: Mapping[str, Any], taken: Callable[[str], bool] = lambda _: False
) -> RunFolder:
    """Returns the newest of NAME_00001, NAME_00002, … whose run has these settings, else the next one, and makes it.

    settings: what decides the result, as JSON. taken: whether a name is in use elsewhere; such a folder is not made.
    Raises OSError if it cannot be made.
    """
    runs = [path for path in sorted(parent.glob(f"{name}_*")) if (path / SETTINGS_FILE).is_file()]
    known = {path: _read(path) for path in runs if path.name.removeprefix(f"{name}_").isdigit()}
    wanted = json.loads(json.dumps(settings))
    for path, own in reversed(known.items()):
        if own == wanted:
            return RunFolder(path)
    last = max((int(path.name.removeprefix(f"{name}_")) for path in known), default=0)
    names = (f"{name}_{number:05}" for number in count(last + 1))
    path = parent / next(new for new in names if not (parent / new).exists() and not taken(new))
    path.mkdir(parents=True)
    (path / SETTINGS_FILE).write_text(json.dumps(wanted, indent=2) + "\n", "utf-8")
    before = list(known.values())[-1] if known else wanted
    return RunFolder(path, tuple(key for key in wanted if wanted[key] != before.get(key)))


def _read(path: Path) -> dict[str, Any]:
    """The settings of a run; none of a damaged file, which no run equals."""
    try:
        read = json.loads((path / SETTINGS_FILE).read_text("utf-8"))
    except json.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}
