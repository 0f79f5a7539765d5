"""Adds shots to the end of a take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

from ..script import Length, ShotScript
from ..script.append import append_shots
from .take import Shot, Take, Version


def append(take: Take, text: str) -> Take:
    """Returns the take with the shots of a ShotScript added to its end; it is not saved.

    Existing shots keep their blocks bit for bit, their versions, choices, locks and splices. The text may use the names
    of the take's script and define others; clock times count from the film's start. Raises ScriptError, with line and
    column of `text`, and ValueError if the plan of an existing shot would change.
    """
    longer = append_shots(_with_lengths(take), text)
    added = tuple(Shot((Version(shot.text, shot.seed),)) for shot in longer.shots[len(take.shots) :])
    appended = replace(take, script=longer, shots=(*take.shots, *added))
    for was, now in zip(take.plan.blocks, appended.plan.blocks, strict=False):
        if was != now:
            raise ValueError(
                f"block {was.index} of shot {was.shot + 1} would change: render the whole script as a new film instead"
            )
    return appended


def _with_lengths(take: Take) -> ShotScript:
    """The take's script with a length in blocks for every shot that has no length or a clock time.

    The lengths of these shots would otherwise depend on the shots that follow.
    """
    blocks = Counter(block.shot for block in take.plan.blocks)
    shots = tuple(
        replace(shot, duration=Length(Decimal(blocks[number]), "blocks"), start=None)
        if shot.duration is None or shot.start is not None
        else shot
        for number, shot in enumerate(take.script.shots)
    )
    return replace(take.script, shots=shots)
