"""ShotScript: a film written as text; grammar → shots → plan of blocks."""

from .length import Length
from .plan import CUT_PREFIX, BlockPlan
from .shots import Shot, ShotScript, plan_shot
from .source import ScriptError

__all__ = ["CUT_PREFIX", "BlockPlan", "Length", "ScriptError", "Shot", "ShotScript", "plan_shot"]
