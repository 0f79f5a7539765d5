"""Takes: a film on disk, block by block and version by version, to be resumed, retaken and cut again."""

from .blocks import BadBlock
from .edit import Retake, choose, lock, prune, retake
from .run import TakeRun
from .take import Shot, Take, Version, takes_in

__all__ = [
    "BadBlock",
    "Retake",
    "Shot",
    "Take",
    "TakeRun",
    "Version",
    "choose",
    "lock",
    "prune",
    "retake",
    "takes_in",
]
