"""A film's blocks in a take that nobody asked for: a full disk does not end the film."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import takewhile

import torch
from torch import Tensor

from ..script import BlockPlan
from ..take import Take
from ..take.block_file import latents_digest
from ..take.take import FILE
from ..types import Block, BlockSpec
from .live_script import LiveScript
from .take_store import TakeStore


class KeptStore(TakeStore):
    """A `TakeStore` that holds blocks in host memory that the disk cannot take.

    error: why the take is incomplete, or None. A later run tries again to write these blocks.
    """

    def __init__(
        self, take: Take, *, on_note: Callable[[str], None] | None = None, live: LiveScript | None = None
    ) -> None:
        """The arguments are those of `TakeStore`."""
        self.error: OSError | None = None
        self._in_memory: dict[int, Block] = {}
        super().__init__(take, on_note=on_note, live=live)

    def find(self, spec: BlockSpec) -> Block | None:
        if spec.index not in self._in_memory:
            return super().find(spec)
        block = Block(spec, self._in_memory[spec.index].latents)
        self.save(block, self.take.plan)
        return block

    def save(self, block: Block, plan: BlockPlan) -> None:
        try:
            super().save(block, plan)
        except OSError as error:
            if self.error is None:
                self._notify(f"the film goes on without its take: {error}")
            self.error = error
            self._in_memory[block.index] = block
            self._history = self._history.then(latents_digest(block.latents))
        else:
            self._in_memory.pop(block.index, None)

    def read(self, spec: BlockSpec) -> Tensor:
        held = self._in_memory.get(spec.index)
        return super().read(spec) if held is None else held.latents

    def adopt(self, blocks: Sequence[Block]) -> None:
        self.begin_run()
        for block in blocks:
            stored = self.find(block.spec)
            if stored is None:
                self.save(block, self.take.plan)
            elif not torch.equal(stored.latents, block.latents):
                break  # the take begins the shot with its storyboard, so the later blocks do not follow
        self.begin_run()

    @property
    def finished(self) -> int:
        return self._with_memory(super().finished)

    def finished_blocks(self) -> tuple[Block, ...]:
        stored = super().finished_blocks()
        held = range(len(stored), self._with_memory(len(stored)))
        return (*stored, *(self._in_memory[index] for index in held))

    def is_intact(self) -> bool:
        return len(self.finished_blocks()) == len(self._stored) if self._in_memory else super().is_intact()

    def locked(self) -> AbstractContextManager[object]:
        try:
            self.take.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                stack.enter_context(super().locked())
                if not (self.take.folder / FILE).is_file():  # it was removed while the film was cached
                    self.take.save()
                return stack.pop_all()
        except BlockingIOError:
            raise
        except OSError as error:
            self.error = error
            return nullcontext()

    def _with_memory(self, stored: int) -> int:
        """The number of finished blocks, those in memory included, of which `stored` are on disk."""
        return stored + sum(1 for _ in takewhile(self._in_memory.__contains__, range(stored, len(self._stored))))
