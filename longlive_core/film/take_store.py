"""A film's blocks in a take: each block is written to disk before the film yields it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import takewhile
from pathlib import Path

from torch import Tensor

from ..sampling import Generation, Snapshot
from ..script import BlockPlan
from ..script.storyboard import storyboard_blocks
from ..take import BadBlockError, Take
from ..take.ahead import AheadShots
from ..take.block_file import BlockRecord, History, latents_digest, load_block, save_block, write_atomically
from ..take.from_video import check_video
from ..take.history import read_blocks, stored_blocks
from ..take.live_versions import with_live_script, with_versions_of
from ..take.lock import TakeLock
from ..take.start_image import load_start_image
from ..take.storyboard import read_storyboard
from ..types import Block, BlockSpec
from ..units import plural
from .block_store import BlockStore
from .live_script import LiveScript


class TakeStore(BlockStore):
    """A `BlockStore` for the chosen versions of a take's shots.

    A stored block is used if it is undamaged and was sampled after the blocks that now precede it. All other blocks are
    sampled again: clean passes over the preceding blocks rebuild the KV cache of the original run, so that a new block
    equals that of an uninterrupted run bit for bit on the same device and precision. A stored snapshot of the KV cache
    that was made after the same blocks replaces the clean passes before it.
    """

    def __init__(
        self,
        take: Take,
        *,
        on_note: Callable[[str], None] | None = None,
        snapshots: bool = False,
        live: LiveScript | None = None,
        storyboard: bool = False,
        is_locked: bool = False,
        check: Callable[[], None] | None = None,
        ahead: AheadShots | None = None,
    ) -> None:
        """on_note: receives a note whenever a block is made again. snapshots: store the KV cache before each shot.

        live: the script that the film follows; the take records its changes. storyboard: the film is the take's
        storyboard, whose blocks are used regardless of the blocks before them. is_locked: the caller holds the
        `TakeLock`. check: that of the lock; it is called before anything is written.
        ahead: has blocks that other processes sampled.
        """
        self.take, self.is_locked = take, is_locked
        self._on_note, self._check, self._ahead = on_note, check or _no_check, ahead
        self._snapshots, self._live, self._storyboard = snapshots, live, storyboard
        self._stored = storyboard_blocks(take.plan) if storyboard else take.plan.blocks
        self._checked: dict[int, BlockRecord] = {}
        self._intact = False
        self.begin_run()

    def begin_run(self) -> None:
        self._history = History()
        self._histories: dict[int, History] = {}
        self._saved: set[int] = set()
        self._unusable_snapshots: set[Path] = set()

    def find(self, spec: BlockSpec) -> Block | None:
        self._histories[spec.index] = self._history
        stored = self._stored[spec.index]
        if not self._storyboard and stored != spec:
            return None  # the live script has changed the shot
        path = self.take.path(stored)
        try:
            block, record = load_block(path, stored, self.take.settings)
        except FileNotFoundError:
            if self._ahead is not None and (found := self._ahead.find(stored)) is not None:
                self.save(Block(spec, found.latents), self.take.plan)
                return Block(spec, found.latents)
            if self._was_removed(spec):
                self._notify(f"block {spec.index} (shot {spec.shot + 1}) is missing and is made again")
            return None
        except BadBlockError as error:
            self._notify(f"{error}: block {stored.index} is made again")
            return None
        if record.history != self._history and not (self._storyboard or self.take.ignores_history(spec)):
            self._notify(f"{path} was made after other blocks: block {spec.index} is made again")
            return None
        self._checked[spec.index] = record
        self._history = self._history.then(record.digest)
        return Block(spec, block.latents)

    def save(self, block: Block, plan: BlockPlan) -> None:
        if not self._storyboard and self._stored[block.index] != block.spec:
            self._follow(plan)
        self._histories[block.index] = self._history
        stored = self._stored[block.index]
        path, record = self.take.path(stored), BlockRecord(self._history, latents_digest(block.latents))
        if self._checked.get(block.index) != record or not path.is_file():
            self._check()
            save_block(path, Block(stored, block.latents), self.take.settings, self._history)
            self._checked[block.index] = record
            self._saved.add(block.index)
        self._history = self._history.then(record.digest)

    def read(self, spec: BlockSpec) -> Tensor:
        # Read from disk every time, so that a long film's latents need no memory.
        stored = self._stored[spec.index]
        return load_block(self.take.path(stored), stored, self.take.settings)[0].latents

    @property
    def finished(self) -> int:
        if self._storyboard:
            return sum(1 for _ in takewhile(self.take.record, self._stored))
        return min(len(self._stored), len(stored_blocks(self.take)))

    def finished_blocks(self) -> tuple[Block, ...]:
        read = tuple(self._read_blocks())
        self._checked |= {block.index: record for block, record in read}
        return tuple(block for block, _ in read)

    def is_intact(self) -> bool:
        self._intact = self._intact or sum(1 for _ in self._read_blocks()) == len(self._stored)
        return self._intact

    def start_image(self) -> Tensor | None:
        check_video(self.take)
        return load_start_image(self.take)

    def restore(self, generation: Generation, spec: BlockSpec) -> None:
        plan = self.take.plan
        starts = [block for block in plan.blocks[1 : spec.index + 1] if plan.begins_shot(block)]
        for start in reversed(starts):
            path = self.take.snapshot_path(start, self._histories[start.index])
            try:
                generation.restore(Snapshot.load(path))
                break
            except FileNotFoundError:
                continue
            except ValueError as error:
                self._unusable_snapshots.add(path)
                self._notify(f"{error}: the KV cache before shot {start.shot + 1} is rebuilt")
        if count := spec.index - generation.position:
            self._notify(
                f"the KV cache is rebuilt, exactly, from the {plural(count, 'block')} before block {spec.index}"
            )

    @property
    def history(self) -> History:
        return self._history

    def save_snapshot(self, snapshot: Callable[[], Snapshot], spec: BlockSpec, *, replayed: bool) -> None:
        if not (self._snapshots and spec.index and self.take.plan.begins_shot(spec)):
            return
        path = self.take.snapshot_path(spec, self._histories[spec.index])
        is_damaged = path in self._unusable_snapshots
        if (path.is_file() or (replayed and not self.take.is_preview(spec))) and not is_damaged:
            return
        self._check()
        try:
            write_atomically(path, snapshot().save)
        except OSError as error:
            # The film does not need the snapshot: without it, a retake rebuilds the KV cache.
            self._notify(f"no snapshot is stored before shot {spec.shot + 1}: {error}")

    def locked(self) -> AbstractContextManager[object]:
        if self.is_locked:
            return nullcontext()
        with ExitStack() as stack:
            self._check = stack.enter_context(TakeLock(self.take.folder)).check
            stack.callback(self._end_lock)
            return stack.pop_all()

    def _end_lock(self) -> None:
        self._check = _no_check

    def _notify(self, note: str) -> None:
        if self._on_note is not None:
            self._on_note(note)

    def _read_blocks(self) -> Iterator[tuple[Block, BlockRecord]]:
        """Reads the blocks that `finished` counts with their records, up to the first damaged one."""
        return read_storyboard(self.take) if self._storyboard else read_blocks(self.take)

    def _was_removed(self, spec: BlockSpec) -> bool:
        """Whether a missing block was removed: later blocks of the film are stored, and this run did not stop here."""
        if self._storyboard or spec.index - 1 in self._saved or not self.take.path(spec).parent.is_dir():
            return False
        later = self.take.plan.blocks[spec.index + 1 :]
        return any(self.take.path(block).is_file() and not self.take.is_preview(block) for block in later)

    def _follow(self, plan: BlockPlan) -> None:
        """Records the shots that the live script changed, beside versions that a retake may have added on disk."""
        self._check()
        take = with_versions_of(self.take, Take.load(self.take.folder))
        self.take = with_live_script(take, plan, None if self._live is None else self._live.script)
        self.take.save()
        self._stored = self.take.plan.blocks


def _no_check() -> None:
    """Of a store whose take this process has not locked."""
