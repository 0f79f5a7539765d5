"""ShotScript: a film written as text; grammar → shots → plan of blocks."""

from .block_plan import CUT_PREFIX, BlockPlan
from .duration import Length
from .shots import Shot, ShotScript, plan_shot
from .source import ScriptError

__all__ = ["CUT_PREFIX", "BlockPlan", "Length", "ScriptError", "Shot", "ShotScript", "plan_shot"]
