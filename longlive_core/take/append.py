"""Adds shots to the end of a take."""

from __future__ import annotations

from dataclasses import replace

from ..script.append import append_shots
from ..script.from_plan import with_lengths
from .take import Shot, Take, Version


def append(take: Take, text: str) -> Take:
    """Returns the take with the shots of a ShotScript added to its end; it is not saved.

    Existing shots keep their blocks bit for bit, their versions, choices, locks and splices. The text may use the names
    of the take's script and define others; clock times count from the film's start. Raises ScriptError, with line and
    column of `text`, and ValueError if the plan of an existing shot would change.
    """
    longer = append_shots(with_lengths(take.script, take.plan), text)
    added = tuple(Shot((Version(shot.text, shot.seed),)) for shot in longer.shots[len(take.shots) :])
    appended = replace(take, script=longer, shots=(*take.shots, *added))
    for was, now in zip(take.plan.blocks, appended.plan.blocks, strict=False):
        if was != now:
            raise ValueError(
                f"block {was.index} of shot {was.shot + 1} would change: render the whole script as a new film instead"
            )
    return appended
