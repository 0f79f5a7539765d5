"""Where a film's blocks are stored while it is made: in memory, in a take (`TakeStore`), or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from ..sampling import Generation
from ..script import BlockPlan
from ..types import Block, BlockSpec


class BlockStore(Protocol):
    """The stored blocks of one film.

    A run of the film calls `begin_run` and then, for every block in order, either `find` (and `save` where it found
    nothing) or `save`.
    """

    is_locked: bool
    """Whether no other process can change the blocks."""

    def begin_run(self) -> None:
        """Starts at the first block again."""
        ...

    def find(self, spec: BlockSpec) -> Block | None:
        """The stored block, None where it must be made. Latents `[1, C, F, H, W]`, float32 on the CPU."""
        ...

    def save(self, block: Block, plan: BlockPlan) -> None:
        """Stores a block of the plan. Raises OSError, with every earlier block still stored."""
        ...

    def read(self, spec: BlockSpec) -> Tensor:
        """The latents of a block that this run found or saved."""
        ...

    def adopt(self, blocks: Sequence[Block]) -> None:
        """Stores the film's first blocks, made elsewhere; blocks that are stored already stay."""
        ...

    def finished(self, plan: BlockPlan) -> int:
        """How many blocks are stored before the first one that must be made."""
        ...

    def finished_blocks(self, plan: BlockPlan) -> tuple[Block, ...]:
        """These blocks, read and checked."""
        ...

    def is_intact(self, plan: BlockPlan) -> bool:
        """Whether every block is stored and undamaged."""
        ...

    def start_image(self) -> Tensor | None:
        """Latents `[1, C, 1, H, W]` of the image that the film begins with, if the store has one.

        Raises ValueError where the film begins with an image or a video that the store has lost.
        """
        ...

    def restore(self, generation: Generation, spec: BlockSpec) -> None:
        """Moves a new generation to the last stored snapshot at or before the block, if there is one."""
        ...

    def save_snapshot(self, generation: Generation, spec: BlockSpec, *, replayed: bool) -> None:
        """Stores the KV cache before a block, where the store wants it. replayed: the block itself is stored."""
        ...

    def locked(self) -> AbstractContextManager[object]:
        """Held while blocks are made. Raises BlockingIOError while another process makes the film."""
        ...


class DiscardingStore:
    """Stores nothing: every run makes the whole film."""

    is_locked = True

    def begin_run(self) -> None: ...

    def find(self, spec: BlockSpec) -> Block | None: ...

    def save(self, block: Block, plan: BlockPlan) -> None: ...

    def read(self, spec: BlockSpec) -> Tensor:
        raise LookupError(f"block {spec.index} is not stored")

    def adopt(self, blocks: Sequence[Block]) -> None: ...

    def finished(self, plan: BlockPlan) -> int:  # noqa: ARG002
        return 0

    def finished_blocks(self, plan: BlockPlan) -> tuple[Block, ...]:  # noqa: ARG002
        return ()

    def is_intact(self, plan: BlockPlan) -> bool:
        return self.finished(plan) == len(plan.blocks)

    def start_image(self) -> Tensor | None: ...

    def restore(self, generation: Generation, spec: BlockSpec) -> None: ...

    def save_snapshot(self, generation: Generation, spec: BlockSpec, *, replayed: bool) -> None: ...

    def locked(self) -> AbstractContextManager[object]:
        return nullcontext()


class MemoryStore(DiscardingStore):
    """Stores blocks in host memory: 5 MB a block at 704x1280."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []

    def find(self, spec: BlockSpec) -> Block | None:
        return self._blocks[spec.index] if spec.index < len(self._blocks) else None

    def save(self, block: Block, plan: BlockPlan) -> None:  # noqa: ARG002
        # Blocks of an earlier film come again while that film is incomplete.
        self._blocks[block.index :] = [block]

    def read(self, spec: BlockSpec) -> Tensor:
        return self._blocks[spec.index].latents

    def adopt(self, blocks: Sequence[Block]) -> None:
        if len(blocks) > len(self._blocks):
            self._blocks = [Block(block.spec, block.latents.to("cpu", torch.float32)) for block in blocks]

    def finished(self, plan: BlockPlan) -> int:  # noqa: ARG002
        return len(self._blocks)

    def finished_blocks(self, plan: BlockPlan) -> tuple[Block, ...]:  # noqa: ARG002
        return tuple(self._blocks)
