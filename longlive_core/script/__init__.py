"""ShotScript: parse a film written as text into shots, and plan the shots in blocks."""

from .block_plan import CUT_PREFIX, BlockPlan
from .duration import Length
from .reading import Note, ScriptReading
from .shots import Shot, ShotScript, plan_shot
from .source import ScriptError

__all__ = [
    "CUT_PREFIX",
    "BlockPlan",
    "Length",
    "Note",
    "ScriptError",
    "ScriptReading",
    "Shot",
    "ShotScript",
    "plan_shot",
]
