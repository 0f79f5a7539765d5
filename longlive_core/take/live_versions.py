"""Updates a take whose script or versions change while its film is sampled."""

from __future__ import annotations

from dataclasses import replace

from ..script import BlockPlan, ShotScript
from ..script.from_plan import escaped, script_of
from .take import Shot, Take, Version, with_text


def with_versions_of(take: Take, saved: Take) -> Take:
    """Returns the film as chosen in `take`, with the versions and locks that the `saved` take has in addition.

    Raises ValueError if the saved take has become another film.
    """
    same_count = len(saved.shots) == len(take.shots)
    pairs = tuple(zip(take.shots, saved.shots, strict=same_count))
    if not same_count or any(disk.versions[: len(mine.versions)] != mine.versions for mine, disk in pairs):
        raise ValueError(f"{saved.folder} has become another film since it was loaded: load it again")
    shots = (replace(mine, versions=disk.versions, locked=disk.locked, accepted=disk.accepted) for mine, disk in pairs)
    return replace(take, shots=tuple(shots))


def with_live_script(take: Take, plan: BlockPlan, written: ShotScript | None) -> Take:
    """Returns the take after its live script changed; `plan` is the film's new plan.

    From the first changed shot on, every shot gets a new version, which is chosen, because it follows other blocks;
    earlier versions stay. written: the script as the user wrote it; None takes the script from the plan.
    """
    planned = script_of(plan)
    pairs = zip(script_of(take.plan).shots, planned.shots, strict=True)
    # That a shot is kept from now on changes nothing in it.
    first = next(i for i, (was, now) in enumerate(pairs) if replace(was, keeps=()) != replace(now, keeps=()))
    changed = range(first, len(planned.shots))
    script = planned if written is None or len(written.shots) != len(planned.shots) else written
    with_words = _with_words_of(take, script)
    for base in (take if written is None else None, with_words, _with_names_of(with_words, script)):
        result = None if base is None else _with_live_shots(base, script, changed)
        if result is not None and result.plan.blocks == plan.blocks:
            return result
    # The take's names and style cannot express these shots, so every version of every shot is recorded in full.
    shots = (_in_full(take, i) for i in range(len(take.shots)))
    shots = tuple(_with_live_version(shot, planned, i) if i in changed else shot for i, shot in enumerate(shots))
    return replace(take, script=planned, shots=shots)


def _with_words_of(take: Take, script: ShotScript) -> Take:
    """The take whose shots keep and recall what those of a script do."""
    pairs = zip(take.script.shots, script.shots, strict=True)
    shots = tuple(replace(mine, keeps=theirs.keeps, recalls=theirs.recalls) for mine, theirs in pairs)
    return replace(take, script=replace(take.script, shots=shots, auto_recall=script.auto_recall))


def _with_names_of(take: Take, script: ShotScript) -> Take | None:
    """The take with the names that a script defines in addition; None if that changes what the take's versions mean."""
    known = {name.casefold(): text for name, text in take.script.names}
    if script.style != take.script.style or any(
        known.get(name.casefold(), text) != text for name, text in script.names
    ):
        return None
    added = (named for named in script.names if named[0].casefold() not in known)
    written = replace(take.script, names=(*take.script.names, *added))
    return replace(take, script=ShotScript.parse(written.format()))


def _in_full(take: Take, index: int) -> Shot:
    """A shot whose versions need neither names nor style: their prompts, and so their blocks, stay the same."""
    shot = take.shots[index]
    prompts = (with_text(take.script, index, version).shots[index].prompt for version in shot.versions)
    versions = tuple(
        replace(version, text=escaped(prompt)) for version, prompt in zip(shot.versions, prompts, strict=True)
    )
    return replace(shot, versions=versions)


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
