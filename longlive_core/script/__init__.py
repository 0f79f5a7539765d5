"""ShotScript: parse a film written as text into shots, and plan the shots in blocks."""

from .block_plan import CUT_PREFIX, BlockPlan
from .duration import Length
from .shots import Shot, ShotScript, plan_shot
from .source import ScriptError

__all__ = ["CUT_PREFIX", "BlockPlan", "Length", "ScriptError", "Shot", "ShotScript", "plan_shot"]
