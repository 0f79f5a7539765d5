"""Takes: films on disk, block by block and version by version, which can be resumed, retaken and extended."""

from .block_file import BadBlockError
from .changes import Changes, preview_changes
from .follow import follow
from .retake import Retake, retake
from .take import Shot, Take, Version, takes_in
from .versions import choose, lock_shot, prune

__all__ = [
    "BadBlockError",
    "Changes",
    "Retake",
    "Shot",
    "Take",
    "Version",
    "choose",
    "follow",
    "lock_shot",
    "preview_changes",
    "prune",
    "retake",
    "takes_in",
]
