"""Takes: films on disk, block by block and version by version, which can be resumed, retaken and extended."""

from .block_file import BadBlockError
from .retake import Retake, retake
from .take import Shot, Take, Version, takes_in
from .versions import choose, lock_shot, prune

__all__ = [
    "BadBlockError",
    "Retake",
    "Shot",
    "Take",
    "Version",
    "choose",
    "lock_shot",
    "prune",
    "retake",
    "takes_in",
]
