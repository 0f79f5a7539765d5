"""A retake that is asked for again and again, as a graph does: what was made for it once is its answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..script import Shot as ScriptShot
from .from_video import MADE as GIVEN
from .history import history_before, made_after
from .take import Shot, Take, Version, with_text
from .versions import Mode, retake, shot_index


def retake_once(take: Take, number: int, seed: int, prompt: str = "", mode: Mode = "ripple") -> Take:
    """The take with shot `number` (from 1) of that seed and prompt in its film; not yet saved.

    A version of the shot that has both already, made or begun behind what now stands before it, is chosen; else there
    is a new one. prompt: as in a script, empty for the one that is chosen. ripple: the shots after it follow from it,
    in versions that are there or new ones, but for those that are locked. keep: they stay as they are, spliced. A
    shot that is so already leaves the take as it is. Raises ValueError and ScriptError as `retake` does.
    """
    index = shot_index(take, number)
    shot = take.shots[index]
    now = shot.versions[shot.chosen]
    if now.made == GIVEN:
        raise ValueError(f"shot {number} is a given video, which no model made: retake one of the shots behind it")
    wanted = with_text(take.script, index, Version(prompt.strip() or now.text, seed)).shots[index]
    alike = [v for v in _newest_first(shot) if (shot.versions[v].text, shot.versions[v].seed) == _said(wanted)]
    history = history_before(take, index)
    version = next(
        (v for v in alike if v == shot.chosen or made_after(take, index, v, history) in (None, history)), None
    )
    if mode == "keep" and version != shot.chosen:
        _check_made(take, index + 1)
    if version is None:
        return retake(take, number, seed, prompt.strip() or None, mode).take
    moved = version != shot.chosen
    if moved and shot.locked:
        raise ValueError(f"shot {number} is locked; `longlive takes unlock` first, or retake another shot")
    if moved:
        take = take.with_shot(index, replace(shot, chosen=version, spliced=False))
    for later in range(index + 1, len(take.shots)):
        following = take.shots[later]
        if mode == "ripple" and not following.locked and (moved or following.spliced):
            take = take.with_shot(later, _rippled(take, later))
        elif moved:
            take = take.with_shot(later, replace(following, spliced=True))
    return take


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


def _check_made(take: Take, index: int) -> None:
    """Raises ValueError where a shot from `index` on is not made: it would be made behind the retake, as none was."""
    for spec in take.plan.blocks:
        if spec.shot >= index and take.facts(spec) is None:
            raise ValueError(
                f"shot {spec.shot + 1} is not made yet, so it cannot be kept as it is: make the film first, or let the "
                "shots behind follow (ripple)"
            )


def _rippled(take: Take, index: int) -> Shot:
    """A shot in a version that follows from what stands before it: one that is there, else a new one."""
    shot, history = take.shots[index], history_before(take, index)
    now = shot.versions[shot.chosen]
    alike = [v for v in _newest_first(shot) if _said(shot.versions[v]) == _said(now)]
    made_on = {version: made_after(take, index, version, history) for version in alike}
    if history is not None:
        for version in alike:
            if made_on[version] == history:
                return replace(shot, chosen=version, spliced=False)
    for version in alike:
        if made_on[version] is None and shot.versions[version].made == "ripple":
            return replace(shot, chosen=version, spliced=False)
    return replace(
        shot, versions=(*shot.versions, replace(now, made="ripple")), chosen=len(shot.versions), spliced=False
    )


def _said(what: Version | ScriptShot) -> tuple[str, int | None]:
    return what.text, what.seed


def _newest_first(shot: Shot) -> Iterator[int]:
    """Version numbers, the chosen one before all."""
    yield shot.chosen
    yield from (v for v in reversed(range(len(shot.versions))) if v != shot.chosen)
