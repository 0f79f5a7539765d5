"""Which blocks precede a shot of a take, and after which blocks each version was sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..types import Block, BlockSpec
from .block_file import BadBlockError, BlockRecord, History, load_block
from .take import Take


def history_before(take: Take, index: int) -> History | None:
    """Returns the history before a shot (from 0) of the film as chosen; None if a block before it is missing."""
    history = History()
    for spec in take.plan.blocks:
        if spec.shot == index:
            break
        record = take.record(spec)
        if record is None:
            return None
        history = history.then(record.digest)
    return history


def version_history(take: Take, index: int, version: int, before: History | None) -> History | None:
    """Returns the history before the first block of a version of a shot (from 0); None if that block is missing.

    The first block of a storyboard version fits any history: it counts as sampled after `before`, the history before
    the shot now, unless the version's second block was sampled after another one.
    """
    return first_history(take, [spec for spec in take.plan.blocks if spec.shot == index], version, before)


def first_history(take: Take, specs: Sequence[BlockSpec], version: int, before: History | None) -> History | None:
    """Like `version_history`, for a caller that has the blocks of the shot."""
    first, *rest = specs
    index = first.shot
    record = take.record(first, version)
    if record is None or take.shots[index].versions[version].made != "preview":
        return None if record is None else record.history
    second = take.record(rest[0], version) if rest else None
    fits = second is None or (before is not None and second.history == before.then(record.digest))
    return before if fits else record.history


def stored_blocks(take: Take) -> list[BlockSpec]:
    """Lists the first blocks of the film as chosen that are stored and were sampled after each other."""
    history, stored = History(), list[BlockSpec]()
    for spec in take.plan.blocks:
        record = take.record(spec)
        if record is None or (record.history != history and not take.ignores_history(spec)):
            break
        history = history.then(record.digest)
        stored.append(spec)
    return stored


def read_blocks(take: Take) -> Iterator[tuple[Block, BlockRecord]]:
    """Reads the `stored_blocks` with their records, up to the first damaged one."""
    for spec in stored_blocks(take):
        try:
            yield load_block(take.path(spec), spec, take.settings)
        except (FileNotFoundError, BadBlockError):
            return
