"""Which blocks precede a shot of a take, and after which blocks each version was made."""

from __future__ import annotations

from collections.abc import Iterator

from ..types import Block, BlockSpec
from .block_file import BadBlockError, BlockRecord, History, load_block
from .take import Take


def history_before(take: Take, index: int) -> History | None:
    """The history before a shot (from 0) as chosen; None where a block before it is yet to be made."""
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
    """The history that a version was made on; None where its first block is yet to be made.

    A storyboard's block stands anywhere, so `before` the shot too, unless its second block was made after others.
    """
    first, *rest = (spec for spec in take.plan.blocks if spec.shot == index)
    record = take.record(first, version)
    if record is None or take.shots[index].versions[version].made != "preview":
        return None if record is None else record.history
    second = take.record(rest[0], version) if rest else None
    stands = second is None or (before is not None and second.history == before.then(record.digest))
    return before if stands else record.history


def stored_blocks(take: Take) -> list[BlockSpec]:
    """The film's first blocks as chosen, as far as they are stored and were made after each other; latents unread."""
    history, stored = History(), list[BlockSpec]()
    for spec in take.plan.blocks:
        record = take.record(spec)
        if record is None or (record.history != history and not take.ignores_history(spec)):
            break
        history = history.then(record.digest)
        stored.append(spec)
    return stored


def read_blocks(take: Take) -> Iterator[tuple[Block, BlockRecord]]:
    """The `stored_blocks`, read and checked, up to the first damaged one."""
    for spec in stored_blocks(take):
        try:
            yield load_block(take.path(spec), spec, take.settings)
        except (FileNotFoundError, BadBlockError):
            return
