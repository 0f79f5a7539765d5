"""The first blocks of a film from the take of an earlier film that begins in the same way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..script import BlockPlan
from ..types import BlockSpec
from .block_file import BadBlockError, BlockRecord, History, load_block, save_block, write_atomically
from .settings import Settings, changes_bits
from .take import FILM_INDEX, PREVIOUS, Take


def shared_blocks(take: Take, plan: BlockPlan, settings: Settings) -> Iterator[tuple[BlockSpec, BlockRecord]]:
    """Yields the take's first blocks that a film of this plan and these settings has too, with their records.

    They are the same bit for bit: the same texts, seeds and cuts up to there, and each block sampled after those before
    it. The text encoder is taken to be the same.
    """
    if changes_bits(take.settings, settings):
        return
    history = History()
    for spec, planned in zip(take.plan.blocks, plan.blocks, strict=False):
        record = take.record(spec) if spec == planned else None
        if record is None or record.history != history:
            return
        history = history.then(record.digest)
        yield spec, record


def carry_over(earlier: Take, take: Take) -> int:
    """Stores the `shared_blocks` of an earlier take in a take that is saved and locked; returns their number.

    Equal files are hard links where the disk has them: a block's file is replaced as a whole, never changed. Stills and
    snapshots of these blocks come with them, and copies of the indexes of the film's files, from which the new film
    takes their packets. Ends before a damaged block. Raises OSError.
    """
    same, count, history = dict(earlier.settings) == dict(take.settings), 0, History()
    for spec, record in shared_blocks(earlier, take.plan, take.settings):
        source, target = earlier.path(spec), take.path(spec)
        if same:
            link(source, target)
            link(earlier.snapshot_path(spec, history), take.snapshot_path(spec, history))
        else:
            try:
                block, _ = load_block(source, spec, earlier.settings)
            except (FileNotFoundError, BadBlockError):
                return count
            save_block(target, block, take.settings, history)
        if take.plan.begins_shot(spec):
            link(earlier.still(spec.shot, earlier.shots[spec.shot].chosen), take.still(spec.shot, 0))
        if not count:
            _copy_indexes(earlier, take)
        history = history.then(record.digest)
        count += 1
    return count


def _copy_indexes(earlier: Take, take: Take) -> None:
    for index in sorted((earlier.folder / FILM_INDEX).glob("*.txt")):
        if not index.name.startswith(f"{PREVIOUS}."):  # it is the index of a file inside the earlier take
            _copy_whole(index, take.folder / FILM_INDEX / index.name)


def link(source: Path, target: Path) -> None:
    """Links a file, or copies it if the disk has no links; does nothing if there is no such file. Raises OSError."""
    if not source.is_file() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        _copy_whole(source, target)


def _copy_whole(source: Path, target: Path) -> None:
    def copy(partial: Path) -> None:
        shutil.copyfile(source, partial)

    write_atomically(target, copy)
