"""Where a film's blocks are stored while it is made: in memory, in a take (`TakeStore`), or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..sampling import Generation, Snapshot
from ..script import BlockPlan
from ..take.block_file import History
from ..types import Block, BlockSpec


class BlockStore:
    """The stored blocks of one film. This base class stores nothing, so that every run samples the whole film.

    A run of the film calls `begin_run` once. For every block in order it then calls `find`, and `save` if `find`
    returned None; blocks that come from an earlier film are saved without `find`.
    """

    is_locked = True
    """Whether no other process can change the blocks."""

    def begin_run(self) -> None:
        """Starts a run at the first block."""

    def find(self, spec: BlockSpec) -> Block | None:
        """Returns the stored block, or None if it must be sampled. Latents `[1, C, F, H, W]`, float32 on the CPU."""

    def save(self, block: Block, plan: BlockPlan) -> None:
        """Stores a block of the plan. Raises OSError; all earlier blocks are still stored then."""

    def read(self, spec: BlockSpec) -> Tensor:
        """Returns the latents `[1, C, F, H, W]` of a block that this run found or saved."""
        raise LookupError(f"block {spec.index} is not stored")

    def adopt(self, blocks: Sequence[Block]) -> None:
        """Stores the film's first blocks, which another store has; blocks that are stored already stay unchanged."""

    @property
    def finished(self) -> int:
        """The number of blocks that are stored before the first missing one."""
        return 0

    def finished_blocks(self) -> tuple[Block, ...]:
        """Reads and checks the blocks that `finished` counts."""
        return ()

    def is_intact(self) -> bool:
        """Returns whether every block of a complete film is undamaged."""
        return True

    def start_image(self) -> Tensor | None:
        """Returns the latents `[1, C, 1, H, W]` of the film's start image, or None if the store has no start image.

        Raises ValueError if the film begins with an image or a video whose blocks are missing.
        """

    def restore(self, generation: Generation, spec: BlockSpec) -> None:
        """Restores the last stored snapshot of the KV cache at or before the block, if there is one."""

    def save_snapshot(self, snapshot: Callable[[], Snapshot], spec: BlockSpec, *, replayed: bool) -> None:
        """Stores a snapshot of the KV cache before a block, if the store wants one.

        snapshot: makes it. replayed: the block is stored.
        """

    @property
    def history(self) -> History | None:
        """The blocks that this run has found or saved, if the store knows: equal histories have equal KV caches."""

    def locked(self) -> AbstractContextManager[object]:
        """Returns a lock to hold while blocks are sampled. Raises BlockingIOError if another process makes the film."""
        return nullcontext()


class MemoryStore(BlockStore):
    """A `BlockStore` in host memory; a block takes 5 MB at 704x1280."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []

    def find(self, spec: BlockSpec) -> Block | None:
        return self._blocks[spec.index] if spec.index < len(self._blocks) else None

    def save(self, block: Block, plan: BlockPlan) -> None:  # noqa: ARG002
        # An incomplete earlier film yields its blocks again in the next run.
        self._blocks[block.index :] = [block]

    def read(self, spec: BlockSpec) -> Tensor:
        return self._blocks[spec.index].latents

    def adopt(self, blocks: Sequence[Block]) -> None:
        if len(blocks) > len(self._blocks):
            self._blocks = [Block(block.spec, block.latents.to("cpu", torch.float32)) for block in blocks]

    @property
    def finished(self) -> int:
        return len(self._blocks)

    def finished_blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks)
