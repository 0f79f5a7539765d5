"""Versions of a take's shots: choose one, lock a shot, remove the blocks of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .block_file import History
from .history import history_before, version_history
from .recall import recalling
from .take import STILL, Shot, Take, bytes_in


def choose(take: Take, number: int, version: int) -> tuple[Take, tuple[str, ...]]:
    """Returns the take with another version of shot `number` (from 1), not saved, and notes on the later shots.

    Later shots change to the version that was sampled after the chosen one. Without one, a locked shot stays spliced,
    and so do all after a version of mode keep; others get a new version, which the next render samples. Raises
    ValueError for a version that was itself made after other blocks than those that precede the shot.
    """
    index = take.sampled_index(number)
    shot = take.shots[index]
    if not 0 <= version < len(shot.versions):
        raise ValueError(f"shot {number} has no version {version}; it has {len(shot.versions)}, numbered from 0")
    history, notes = history_before(take, index), list[str]()
    history_of_version = version_history(take, index, version, history)
    if history is None and history_of_version is not None:
        raise ValueError(f"blocks before shot {number} are missing; `longlive render --resume` makes them")
    fits = history_of_version in (None, history)
    if not fits and not shot.spliced:
        raise ValueError(
            f"version {version} of shot {number} was made after other blocks than those that now precede it"
        )
    take = take.with_shot(index, replace(shot, chosen=version, spliced=not fits))
    may_splice, depend = shot.versions[version].made == "keep" or shot.spliced, recalling(take.plan, index)
    for later in range(index + 1, len(take.shots)):
        fit = _fitting(take, later, history_before(take, later), may_splice, later in depend)
        if fit.chosen >= len(take.shots[later].versions):
            notes.append(f"shot {later + 1} gets a new version, which is sampled after this one")
        elif fit.chosen != take.shots[later].chosen:
            notes.append(f"shot {later + 1} changes to version {fit.chosen}, which was made after this one")
        if fit.spliced:
            notes.append(f"shot {later + 1} stays unchanged, spliced: it was made after other blocks")
        take = take.with_shot(later, fit)
    return take, tuple(notes)


def lock_shot(take: Take, number: int, locked: bool) -> Take:
    """Returns the take with shot `number` (from 1) locked against retakes of earlier shots, or unlocked.

    Raises ValueError for a shot that the film does not have.
    """
    index = take.shot_index(number)
    return take.with_shot(index, replace(take.shots[index], locked=locked))


def prune(take: Take, memory: bool = False) -> int:
    """Removes the blocks of versions that are not chosen, and partial files; returns the number of bytes freed.

    Text, seed and still of every version stay in the take; a version that is chosen later is sampled again. Snapshots
    that fit no chosen blocks are removed too. memory: removes every snapshot; a retake then rebuilds the KV cache. The
    caller holds the `TakeLock` and has loaded the take since. Raises OSError.
    """
    before = bytes_in(take.folder)
    used = set[Path]() if memory else set(_snapshots_in_use(take))
    for path in take.snapshot_paths():
        if path not in used:
            path.unlink()
    for index, shot in enumerate(take.shots):
        for version in range(len(shot.versions)):
            folder = take.shot_folder(index, version)
            if version != shot.chosen and folder.is_dir():
                _remove_blocks(folder)
    take.remove_partial_files()
    return before - bytes_in(take.folder)


def _remove_blocks(folder: Path) -> None:
    """Removes all files of a version but its still, and the folder if it has none."""
    for path in folder.iterdir():
        if path.name != STILL:
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _snapshots_in_use(take: Take) -> Iterator[Path]:
    """Paths of the snapshots that the film as chosen can use, up to its first missing block."""
    history = History()
    for spec in take.plan.blocks:
        yield take.snapshot_path(spec, history)
        record = take.record(spec)
        if record is None:
            return
        history = history.then(record.digest)


def _fitting(take: Take, index: int, history: History | None, may_splice: bool, depends: bool) -> Shot:
    """A later shot with the version that fits the blocks that now precede it.

    depends: whether it recalls a block of the shot that changes, so that only a lock lets it stay as it is.
    """
    shot = take.shots[index]
    history_of_version = {version: version_history(take, index, version, history) for version in shot.newest_first()}
    for version in shot.newest_first():
        if history is not None and history_of_version[version] == history:
            return replace(shot, chosen=version, spliced=False)
    if history_of_version[shot.chosen] is None:
        return replace(shot, spliced=False)
    if shot.locked or (not depends and (shot.spliced or may_splice)):
        return replace(shot, spliced=True)
    version = replace(shot.versions[shot.chosen], made="ripple")
    return replace(shot, versions=(*shot.versions, version), chosen=len(shot.versions))
