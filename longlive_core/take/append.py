"""More shots behind those of a take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

from ..script import Length, ShotScript
from ..script.append import append_shots
from .take import Shot, Take, Version


def append(take: Take, text: str) -> Take:
    """The take of the same film with the shots of `text`, a ShotScript, behind it; not saved.

    Shots that are there keep their blocks to the bit, their versions, choices, locks and splices. The text may use the
    names of the take's script and define others; times of the clock count from the film's start. Raises ScriptError,
    with line and column of `text`, and ValueError for a shot that would not stay as it is.
    """
    old = take.plan
    longer = append_shots(_with_lengths(take), text)
    added = tuple(Shot((Version(shot.text, shot.seed),)) for shot in longer.shots[len(take.shots) :])
    appended = replace(take, script=longer, shots=(*take.shots, *added))
    for was, now in zip(old.blocks, appended.plan.blocks, strict=False):
        if was != now:
            raise ValueError(
                f"shot {was.shot + 1} would not stay as it is: its block {was.index} would change; make a new film of "
                "the whole script"
            )
    return appended


def _with_lengths(take: Take) -> ShotScript:
    """The take's script with lengths in blocks where a length was left to us or to the clock.

    Those depend on the shots that follow, which the others do not.
    """
    blocks = Counter(block.shot for block in take.plan.blocks)
    shots = tuple(
        replace(shot, duration=Length(Decimal(blocks[number]), "blocks"), start=None)
        if shot.duration is None or shot.start is not None
        else shot
        for number, shot in enumerate(take.script.shots)
    )
    return replace(take.script, shots=shots)
