"""The arms of the evaluation of LongLive Mini, which differ in steps, seams, memory and formats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..memory import DEFAULT_MEMORY, MemoryConfig
from ..sampling import Seam
from .formats import BF16, FORMATS, Format
from .scripts import GROUPS, Group


@dataclass(frozen=True, slots=True)
class Arm:
    """One configuration of sampling, and the groups of films that it makes.

    memory: None generates each shot as a separate film. seam: see `generate`. truth: rendered films that pass through
    the VAE, in place of sampled ones.
    """

    name: str
    groups: tuple[Group, ...] = GROUPS
    steps: int = 4
    seam: Seam = "align"
    memory: MemoryConfig | None = DEFAULT_MEMORY
    storage: Format = BF16
    truth: bool = False


MAIN: Final = "4 steps"
PLAIN: Final = "plain seams"
MEMORY_OFF: Final = "memory off"
SINKS_OFF: Final = "sinks off"
INDEPENDENT: Final = "independent shots"
TWO_STEPS: Final = "2 steps"
FIFTY_STEPS: Final = "50 steps"
TRUTH: Final = "truth through the VAE"


def all_arms() -> tuple[Arm, ...]:
    """The arms of the report. The first one is the default of rendering, and the others change one thing in it."""
    return (
        Arm(MAIN),
        Arm(PLAIN, seam="plain"),
        Arm(MEMORY_OFF, ("short", "minute", "gap"), memory=None),
        Arm(SINKS_OFF, ("minute", "gap"), memory=MemoryConfig(sink=0, shot_sink=False)),
        Arm(INDEPENDENT, ("short", "minute", "gap"), memory=MemoryConfig(independent_shots=True)),
        Arm(TWO_STEPS, ("short", "minute"), steps=2),
        Arm(FIFTY_STEPS, ("short",), steps=50),
        *(Arm(storage.name, ("short", "minute"), memory=storage.memory, storage=storage) for storage in FORMATS),
        Arm(TRUTH, ("short",), truth=True),
    )


def choose_arms(names: Iterable[str]) -> tuple[Arm, ...]:
    """The arms of these names, in the order of the report. Raises ValueError for an unknown name."""
    arms, names = all_arms(), tuple(names)
    known = [arm.name for arm in arms]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no arm '{name}'; the arms are {', '.join(known)}")
    return tuple(arm for arm in arms if arm.name in names)
