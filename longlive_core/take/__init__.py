"""Takes: a film on disk, block by block and version by version, to be resumed, retaken and cut again."""

from ..film.take_run import TakeRun
from .block_file import BadBlock
from .take import Shot, Take, Version, takes_in
from .versions import Retake, choose, lock_shot, prune, retake

__all__ = [
    "BadBlock",
    "Retake",
    "Shot",
    "Take",
    "TakeRun",
    "Version",
    "choose",
    "lock_shot",
    "prune",
    "retake",
    "takes_in",
]
