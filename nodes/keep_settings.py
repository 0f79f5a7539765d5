"""Settings of the front end about takes that save themselves, as the host stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths

from ..longlive_core.units import GB

KEEP, LIMIT = "LongLive.Takes.Keep", "LongLive.Takes.Limit"
DEFAULT_LIMIT_GB = 10.0
# The host's only user without --multi-user.
USER, FILE = "default", "comfy.settings.json"


@dataclass(frozen=True)
class KeepSettings:
    """keep: films made on the canvas keep their takes. limit: bytes above which old takes are offered for removal."""

    keep: bool = True
    limit: int = int(DEFAULT_LIMIT_GB * GB)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> KeepSettings:
        """Reads the settings that the front end stored; what is missing or no setting has its default."""
        keep, limit = stored.get(KEEP), stored.get(LIMIT)
        known = isinstance(limit, int | float) and not isinstance(limit, bool) and 0 <= limit < 1e6
        return cls(keep is not False, int((limit if known else DEFAULT_LIMIT_GB) * GB))

    @classmethod
    def load(cls, user: str = USER) -> KeepSettings:
        """Reads the settings of a user of the host, by the id that the host gives."""
        path = Path(folder_paths.get_user_directory()) / user / FILE
        try:
            stored = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return cls()
        return cls.of(stored) if isinstance(stored, dict) else cls()
