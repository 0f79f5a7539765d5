"""A take follows an edited script: changed shots and those after them get versions, all other blocks stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..script import BlockPlan, ShotScript
from ..script.entry import referenced_names
from ..types import BlockSpec
from .block_file import History
from .history import first_history
from .take import GIVEN_VIDEO, Shot, Take, Version


class LockedShotError(ValueError):
    """The script changes a shot that is locked or a given video; the message says which."""


def follow(take: Take, script: ShotScript) -> Take:
    """Returns the take with the film of an edited script; it is neither saved nor sampled.

    A shot whose text or seed changed gets a version with them. Every later shot follows it: with an earlier version of
    the same text and seed that was sampled after the blocks that now precede it, else with one that has no block yet,
    else with a new one. A locked shot keeps its blocks and is spliced. A script of the film as chosen changes nothing.

    Raises ValueError for a script of another film (see `is_another_film`), and LockedShotError for a changed shot that
    is locked or a given video.
    """
    plan = plan_for(take, script)
    if is_another_film(take, script, plan):
        raise ValueError(f"the script is not of the film in {take.folder}: begin a new take")
    return replace(take, script=script, shots=_followed(take, script, plan))


def is_another_film(take: Take, script: ShotScript, plan: BlockPlan) -> bool:
    """Returns whether the script changes more than texts and seeds: the shots, lengths, cuts, recalls or definitions.

    plan: of the script. A definition counts if the text of a version uses it, because its blocks were made with it.
    """
    if len(script.shots) != len(take.shots) or [_place(b) for b in plan.blocks] != [
        _place(b) for b in take.plan.blocks
    ]:
        return True
    if script.style != take.script.style or [f.name for f in script.cast] != [f.name for f in take.script.cast]:
        return True
    versions = (version.text for shot in take.shots for version in shot.versions)
    used = referenced_names([take.script.style, *versions, *(text for _, text in take.script.names)])
    names = {name.casefold(): text for name, text in script.names}
    return any(names.get(name.casefold()) != text for name, text in take.script.names if name.casefold() in used)


def plan_for(take: Take, script: ShotScript, fps: float | None = None) -> BlockPlan:
    """Plans a script with the take's block length, and with its frame rate if `fps` is None."""
    return script.plan(
        float(take.settings["fps"] or 0) if fps is None else fps, int(take.settings["block_frames"] or 0)
    )


def _place(block: BlockSpec) -> tuple[int, bool, int, tuple[int, ...]]:
    return block.shot, block.cut, block.frames, block.recalled


def _followed(take: Take, script: ShotScript, plan: BlockPlan) -> tuple[Shot, ...]:
    moved, shots = False, list[Shot]()
    known: History | None = History()
    for index, specs in enumerate(plan.blocks_of_shots):
        shot, written = take.shots[index], script.shots[index]
        wanted = Version(written.text, written.seed, "ripple")
        changed = not wanted.has_input_of(shot.versions[shot.chosen])
        if changed:
            _check_can_change(shot, index + 1)
        following = shot
        if changed or (moved and not shot.locked):
            following = _with_version(take, shot, specs, wanted, known)
        elif moved:
            following = replace(shot, spliced=known is None or first_history(take, specs, shot.chosen, known) != known)
        moved = moved or following != shot
        shots.append(following)
        known = history_after(take, following, specs, known)
    return tuple(shots)


def _with_version(take: Take, shot: Shot, specs: Sequence[BlockSpec], wanted: Version, before: History | None) -> Shot:
    """The shot with a version of this text and seed that fits the blocks before it; `before` is None if one is missing.

    A version fits if it was sampled after them, or if it has no block yet.
    """
    equal = [v for v in shot.newest_first() if wanted.has_input_of(shot.versions[v])]
    after = {version: first_history(take, specs, version, before) for version in equal}
    follows = [v for v in equal if before is not None and after[v] == before]
    begun = [v for v in equal if after[v] is None]
    for version in (*follows, *begun):
        return replace(shot, chosen=version, spliced=False)
    return replace(shot, versions=(*shot.versions, wanted), chosen=len(shot.versions), spliced=False)


def history_after(take: Take, shot: Shot, specs: Sequence[BlockSpec], before: History | None) -> History | None:
    """Returns the history after the chosen blocks of a shot; None if a block up to there must be sampled."""
    for spec in specs:
        record = take.record(spec, shot.chosen)
        if before is None or record is None or (record.history != before and not fits_any(shot, spec, specs)):
            return None
        before = before.then(record.digest)
    return before


def fits_any(shot: Shot, spec: BlockSpec, specs: Sequence[BlockSpec]) -> bool:
    """Whether a block of the shot's chosen version may follow other blocks than those it was sampled after."""
    return shot.spliced or (shot.versions[shot.chosen].made == "preview" and spec == specs[0])


def _check_can_change(shot: Shot, number: int) -> None:
    """Raises LockedShotError for a shot that keeps its text and seed."""
    now, locked = shot.versions[shot.chosen], shot.locked
    if now.made == GIVEN_VIDEO:
        raise LockedShotError(f"shot {number} is a given video: it was not sampled, so its text cannot change")
    if locked:
        raise LockedShotError(f"shot {number} is locked: unlock it, or give it its text and seed back: {now.text}")
