"""What is done to a take: another version of a shot, an earlier one chosen, a shot locked, the rest thrown away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from ..sampling.noise import MAX_SEED
from .block_file import History
from .history import history_before, made_after
from .take import Shot, Take, Version, bytes_in

Mode = Literal["ripple", "keep"]


class Retake(NamedTuple):
    """A take with a new version of a shot (from 0), not yet made nor saved; `before` is the film as it was."""

    take: Take
    shot: int
    version: int
    before: Take


def retake(
    take: Take, number: int, seed: int | None = None, prompt: str | None = None, mode: Mode = "ripple"
) -> Retake:
    """A new version of shot `number` (from 1), chosen; what was made stays beside it.

    With neither seed nor prompt the shot gets a seed it has not had. ripple: the shots after it get new versions too,
    which follow from it, but for those that are locked; keep: they stay as they are, spliced behind it. Raises
    ValueError and ScriptError.
    """
    index = _sampled_index(take, number)
    shot = take.shots[index]
    if shot.locked:
        raise ValueError(f"shot {number} is locked; `longlive takes unlock` first, or retake another shot")
    old = shot.versions[shot.chosen]
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed} is outside 0 … {MAX_SEED}")
    if seed is None and prompt is None:
        used = {version.seed for version in shot.versions}
        seed = next(fresh for fresh in range(1, len(used) + 2) if fresh not in used)
    new = Version(old.text if prompt is None else prompt, old.seed if seed is None else seed, mode)
    changed = _with_new(take, index, new)
    # As the script reads it: a prompt may bring a seed of its own.
    written = changed.script.shots[index]
    if (written.text, written.seed) == (old.text, old.seed):
        raise ValueError(f"shot {number} has that very text and seed; give another --seed or --prompt")
    shots = list(changed.shots)
    versions = (*shot.versions, Version(written.text, written.seed, mode))
    shots[index] = Shot(versions, len(versions) - 1)
    changed = replace(changed, shots=tuple(shots))
    for later in range(index + 1, len(shots)):
        following = changed.shots[later]
        if mode == "ripple" and not following.locked:
            changed = _with_new(changed, later, replace(following.versions[following.chosen], made=mode))
        else:
            changed = changed.with_shot(later, replace(following, spliced=True))
    return Retake(changed, index, len(versions) - 1, take)


def choose(take: Take, number: int, version: int) -> tuple[Take, tuple[str, ...]]:
    """The take with another version of shot `number` (from 1), and what follows from it in words; not yet saved.

    Later shots go to the version that was made after the one chosen, where there is one, or stay spliced. Raises
    ValueError where the film would be neither what the model made nor a splice that was asked for.
    """
    index = _sampled_index(take, number)
    if not 0 <= version < len(take.shots[index].versions):
        had = len(take.shots[index].versions)
        raise ValueError(f"shot {number} has no version {version}; it has {had}, numbered from 0")
    chosen = take.shots[index].versions[version]
    history, said = history_before(take, index), list[str]()
    made_on = made_after(take, index, version, history)
    if history is None and made_on is not None:
        raise ValueError(f"blocks before shot {number} are yet to be made; `longlive render --resume` makes them")
    spliced = take.shots[index].spliced
    if made_on is not None and made_on != history and not spliced:
        raise ValueError(f"version {version} of shot {number} was made after other blocks than now stand before it")
    fits = made_on in (None, history)
    take = take.with_shot(index, replace(take.shots[index], chosen=version, spliced=not fits))
    for later in range(index + 1, len(take.shots)):
        fit = _fitting(take, later, history_before(take, later), chosen.made == "keep" or spliced)
        if fit.chosen != take.shots[later].chosen:
            said.append(f"shot {later + 1} goes to version {fit.chosen}, which was made after this one")
        if fit.spliced:
            said.append(f"shot {later + 1} stays as it is, spliced: it was made after other blocks")
        take = take.with_shot(later, fit)
    return take, tuple(said)


def lock_shot(take: Take, number: int, locked: bool) -> Take:
    """The take with shot `number` (from 1) locked against retakes of the shots before it, or not. Raises ValueError."""
    index = shot_index(take, number)
    return take.with_shot(index, replace(take.shots[index], locked=locked))


def prune(take: Take, memory: bool = False) -> int:
    """Removes the blocks of versions that are not chosen, and half-written files; returns the bytes it freed.

    The versions' texts and seeds stay in the take: a version chosen later is made again. Memories of what is not
    chosen go too; memory: those of the film as well, which a retake would have begun from. The take is claimed, and was
    loaded since. Raises OSError.
    """
    before = bytes_in(take.folder)
    kept = set[Path]() if memory else set(_memories_in_use(take))
    for path in take.memories():
        if path not in kept:
            path.unlink()
    for index, shot in enumerate(take.shots):
        for version in range(len(shot.versions)):
            folder = take.shot_folder(index, version)
            if version != shot.chosen and folder.is_dir():
                shutil.rmtree(folder)
    take.remove_partial_files()
    return before - bytes_in(take.folder)


def shot_index(take: Take, number: int) -> int:
    """From 0. Raises ValueError for a shot that the film does not have."""
    if not 1 <= number <= len(take.shots):
        raise ValueError(f"shot {number}: this film has {len(take.shots)}, numbered from 1")
    return number - 1


def _sampled_index(take: Take, number: int) -> int:
    """As `shot_index`, and raises ValueError for a given video: it has no other version and cannot have one."""
    index = shot_index(take, number)
    shot = take.shots[index]
    if shot.versions[shot.chosen].made == "video":
        raise ValueError(f"shot {number} is a given video: it was not sampled, so there is nothing to make again")
    return index


def _memories_in_use(take: Take) -> Iterator[Path]:
    """Where the memory before each shot of the film as chosen lies, as far as its blocks are made."""
    history = History()
    for spec in take.plan.blocks:
        yield take.memory_path(spec, history)
        facts = take.facts(spec)
        if facts is None:
            return
        history = history.then(facts.digest)


def _with_new(take: Take, index: int, version: Version) -> Take:
    shot = take.shots[index]
    return take.with_shot(index, Shot((*shot.versions, version), len(shot.versions)))


def _fitting(take: Take, index: int, history: History | None, may_splice: bool) -> Shot:
    """A later shot behind what now stands before it."""
    shot = take.shots[index]
    newest_first = (shot.chosen, *(v for v in reversed(range(len(shot.versions))) if v != shot.chosen))
    made_on = {version: made_after(take, index, version, history) for version in newest_first}
    for version in newest_first:
        if history is not None and made_on[version] == history:
            return replace(shot, chosen=version, spliced=False)
    if made_on[shot.chosen] is None:
        return replace(shot, spliced=False)
    if shot.spliced or may_splice:
        return replace(shot, spliced=True)
    raise ValueError(
        f"shot {index + 1} was made after other blocks, and no version of it after these; "
        f"`longlive retake` makes one, with --mode keep on an earlier shot it is spliced"
    )
