"""A take whose script or versions change while its film is made."""

from __future__ import annotations

from dataclasses import replace

from ..script import BlockPlan, ShotScript
from ..script.from_plan import script_of
from .take import Shot, Take, Version


def with_versions_of(take: Take, saved: Take) -> Take:
    """The film as chosen in `take`, with every version that was added to the take on disk since.

    Raises ValueError where it has become another film.
    """
    alike = len(saved.shots) == len(take.shots)
    pairs = tuple(zip(take.shots, saved.shots, strict=alike))
    if not alike or any(disk.versions[: len(mine.versions)] != mine.versions for mine, disk in pairs):
        raise ValueError(f"{saved.folder} has become another film since it was loaded: load it again")
    shots = (replace(mine, versions=disk.versions, locked=disk.locked) for mine, disk in pairs)
    return replace(take, shots=tuple(shots))


def with_live_script(take: Take, plan: BlockPlan, written: ShotScript | None) -> Take:
    """The take of a film whose script changed while it was made; `plan` is the film's plan now.

    From the first changed shot on, every shot gets a new, chosen version, because it follows other blocks; earlier
    versions stay. written: the script as the user wrote it, None for a script read from the plan.
    """
    planned = script_of(plan)
    first = next(i for i, shot in enumerate(script_of(take.plan).shots) if shot != planned.shots[i])
    changed = range(first, len(planned.shots))
    script = planned if written is None or len(written.shots) != len(planned.shots) else written
    result = _with_live_shots(take, script, changed)
    if result is not None and result.plan.blocks == plan.blocks:
        return result
    # The take's names and style cannot express these shots: record every shot in full.
    shots = tuple(_with_live_version(shot, planned, i) if i in changed else shot for i, shot in enumerate(take.shots))
    return replace(take, script=planned, shots=shots)


def _with_live_shots(take: Take, script: ShotScript, changed: range) -> Take | None:
    """The take with these shots of a script; None where a shot uses a name that only that script defines."""
    try:
        for index in changed:
            take = take.with_shot(index, _with_live_version(take.shots[index], script, index))
    except ValueError:
        return None
    return take


def _with_live_version(shot: Shot, script: ShotScript, index: int) -> Shot:
    version = Version(script.shots[index].text, script.shots[index].seed, "live")
    return replace(shot, versions=(*shot.versions, version), chosen=len(shot.versions))
