"""Updates a take whose script or versions change while its film is sampled."""

from __future__ import annotations

from dataclasses import replace

from ..script import BlockPlan, ShotScript
from ..script.from_plan import script_of
from .take import Shot, Take, Version


def with_versions_of(take: Take, saved: Take) -> Take:
    """Returns the film as chosen in `take`, with the versions and locks that the `saved` take has in addition.

    Raises ValueError if the saved take has become another film.
    """
    same_count = len(saved.shots) == len(take.shots)
    pairs = tuple(zip(take.shots, saved.shots, strict=same_count))
    if not same_count or any(disk.versions[: len(mine.versions)] != mine.versions for mine, disk in pairs):
        raise ValueError(f"{saved.folder} has become another film since it was loaded: load it again")
    shots = (replace(mine, versions=disk.versions, locked=disk.locked) for mine, disk in pairs)
    return replace(take, shots=tuple(shots))


def with_live_script(take: Take, plan: BlockPlan, written: ShotScript | None) -> Take:
    """Returns the take after its live script changed; `plan` is the film's new plan.

    From the first changed shot on, every shot gets a new version, which is chosen, because it follows other blocks;
    earlier versions stay. written: the script as the user wrote it; None takes the script from the plan.
    """
    planned = script_of(plan)
    first = next(i for i, shot in enumerate(script_of(take.plan).shots) if shot != planned.shots[i])
    changed = range(first, len(planned.shots))
    script = planned if written is None or len(written.shots) != len(planned.shots) else written
    result = _with_live_shots(take, script, changed)
    if result is not None and result.plan.blocks == plan.blocks:
        return result
    # The take's names and style cannot express these shots, so every shot is recorded in full.
    shots = tuple(_with_live_version(shot, planned, i) if i in changed else shot for i, shot in enumerate(take.shots))
    return replace(take, script=planned, shots=shots)


def _with_live_shots(take: Take, script: ShotScript, changed: range) -> Take | None:
    """The take with these shots of a script; None if a shot uses a name that only that script defines."""
    try:
        for index in changed:
            take = take.with_shot(index, _with_live_version(take.shots[index], script, index))
    except ValueError:
        return None
    return take


def _with_live_version(shot: Shot, script: ShotScript, index: int) -> Shot:
    version = Version(script.shots[index].text, script.shots[index].seed, "live")
    return replace(shot, versions=(*shot.versions, version), chosen=len(shot.versions))
