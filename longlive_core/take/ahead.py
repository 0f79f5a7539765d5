"""Shots of a film with independent shots that other processes sample before the film comes to them.

    film.take/ahead/00012/in_use.1                    who samples the run of blocks that begins at block 12
    film.take/ahead/00012/block_00012.safetensors     sampled, until the film takes it over

A run lasts from a cut to the next one. Its blocks depend on those of the global sink and on each other, which their
history says: it begins with the blocks of the sink.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..types import Block, BlockSpec
from .block_file import BadBlockError, History, load_block
from .lock import TakeLock
from .take import AHEAD, Take

POLL_SECONDS = 0.2
Run = tuple[BlockSpec, ...]


def sink_blocks(take: Take) -> Run:
    """The blocks of the global sink, on which every run depends."""
    return take.plan.blocks[: int(take.settings.get("sink") or 0) // take.plan.block_frames]


def independent_runs(take: Take) -> list[Run]:
    """The runs of a film that do not depend on each other; none if its shots are not independent."""
    if not take.settings.get("independent_shots"):
        return []
    blocks = take.plan.blocks
    starts = [block.index for block in blocks if block.cut and block.index >= len(sink_blocks(take))]
    return [blocks[start:end] for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True)]


def run_folder(take: Take, run: Run) -> Path:
    """The folder of a run's blocks."""
    return take.folder / AHEAD / f"{run[0].index:05}"


def block_path(take: Take, run: Run, spec: BlockSpec) -> Path:
    """The file of a block that was sampled ahead."""
    return run_folder(take, run) / f"block_{spec.index:05}.safetensors"


def sink_history(take: Take) -> History | None:
    """The history before the first block of every run; None if a block of the sink is missing."""
    history = History()
    for spec in sink_blocks(take):
        record = take.record(spec)
        if record is None or record.history != history:
            return None
        history = history.then(record.digest)
    return history


def sampled_ahead(take: Take, run: Run) -> list[Block]:
    """Reads the first blocks of a run that were sampled ahead, after the global sink as it is now."""
    history, found = sink_history(take), list[Block]()
    with suppress(FileNotFoundError, BadBlockError):
        for spec in run if history is not None else ():
            block, record = load_block(block_path(take, run, spec), spec, take.settings)
            if record.history != history:
                break
            history = record.history.then(record.digest)
            found.append(block)
    return found


def is_open(take: Take, run: Run) -> bool:
    """Whether a run can be sampled ahead: the film has none of its blocks, and not all of them are sampled."""
    if sink_history(take) is None or any(take.path(spec).is_file() for spec in run):
        return False
    return len(sampled_ahead(take, run)) < len(run)


class OpenShots(NamedTuple):
    """A run that a process samples for the one that makes the film."""

    take: Take
    run: Run
    lock: TakeLock


def claim_shots(take: Take) -> OpenShots | None:
    """Locks a run that is open; from the last one on, because the film is made from its start. Raises OSError."""
    for run in reversed(independent_runs(take)):
        if is_open(take, run):
            run_folder(take, run).parent.mkdir(exist_ok=True)
            with suppress(BlockingIOError):
                lock = TakeLock(run_folder(take, run))
                if is_open(take, run):
                    return OpenShots(take, run, lock)
                lock.release()
    return None


class AheadShots:
    """What the process that makes a film asks for blocks that others have sampled ahead.

    It has the lock of the run at which the film is, so that nobody begins with it; it waits for whoever has begun.
    """

    def __init__(self, take: Take, should_stop: Callable[[], bool] | None = None) -> None:
        """should_stop: ends waiting."""
        self._take, self._should_stop = take, should_stop or (lambda: False)
        self._runs = {spec.index: run for run in independent_runs(take) for spec in run}
        self._run: Run = ()
        self._lock: TakeLock | None = None
        self._found = dict[int, Block]()

    def find(self, spec: BlockSpec) -> Block | None:
        """A block that was sampled ahead; None if the film has to sample it. Waits for its run."""
        run = self._runs.get(spec.index, ())
        if run != self._run:
            self._release()
            self._run, self._lock = run, self._lock_of(run) if run else None
            self._found = {block.index: block for block in (sampled_ahead(self._take, run) if run else ())}
        return self._found.get(spec.index)

    def close(self) -> None:
        """Ends the film, and removes what it has taken over if it is complete."""
        self._release()
        self._run = ()
        if self._runs and self._take.complete:
            shutil.rmtree(self._take.folder / AHEAD, ignore_errors=True)

    def _lock_of(self, run: Run) -> TakeLock | None:
        folder = run_folder(self._take, run)
        folder.parent.mkdir(exist_ok=True)
        while not self._should_stop():
            with suppress(BlockingIOError):
                return TakeLock(folder)
            time.sleep(POLL_SECONDS)
        return None

    def _release(self) -> None:
        """Releases the run that the film has left, whose blocks it has stored."""
        if self._lock is not None:
            for spec in self._run:
                if self._take.path(spec).is_file():
                    block_path(self._take, self._run, spec).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None
