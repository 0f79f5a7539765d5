"""A film in the making: the loop over blocks, each denoised and then remembered by a clean pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from .memory import FilmMemory
from .model import FlowModel
from .sampling import NoiseSource, Schedule
from .snapshot import Snapshot
from .types import Block, BlockSpec, LatentShape


class Plan(Protocol):
    """The blocks of a film, in order and of one length; `BlockPlan` is one."""

    @property
    def blocks(self) -> tuple[BlockSpec, ...]: ...

    @property
    def block_frames(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Step:
    """Progress: step `index` of `steps` of a block is done; `x0` `[B, C, F, H, W]` is what it will look like."""

    block: BlockSpec
    index: int
    steps: int
    x0: Tensor


class NotFiniteError(RuntimeError):
    """The model returned NaN or infinity; `block` names where. The blocks before it are good."""

    def __init__(self, block: BlockSpec) -> None:
        last = block.start + block.frames - 1
        super().__init__(
            f"block {block.index} (shot {block.shot + 1}, latent frames {block.start} to {last}) came out with NaN or "
            "infinite values; the blocks before it are kept. Check the checkpoint and its dtype"
        )
        self.block = block


class Generation(Iterator[Block]):
    """A film in the making: an iterator of blocks that survives what interrupts it.

    After an exception, an interrupt or a stop, `next` goes on with the block that was unfinished and makes it exactly
    as if nothing had happened.
    """

    def __init__(
        self,
        model: FlowModel,
        plan: Plan,
        memory: FilmMemory,
        schedule: Schedule,
        shape: LatentShape,
        guidance: float,
        noise: NoiseSource,
        prefix: Tensor,
        on_step: Callable[[Step], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.plan = plan
        self._model = model
        self._memory = memory
        self._schedule = schedule
        self._shape = shape
        self._guidance = guidance
        self._noise = noise
        self._prefix = prefix
        self._on_step = on_step
        self._should_stop = should_stop or (lambda: False)
        self._cuts = tuple(accumulate(int(block.cut) for block in plan.blocks))
        self._position = 0
        self._draft: Tensor | None = None

    @property
    def position(self) -> int:
        """Index of the next block."""
        return self._position

    @property
    def done(self) -> bool:
        """Whether every block of the plan was made; false after a stop."""
        return self._position == len(self.plan.blocks)

    @torch.no_grad()
    def __next__(self) -> Block:
        if self.done or self._should_stop():
            raise StopIteration
        block = self.plan.blocks[self._position]
        self._memory.begin(block)
        # The draft outlives an interrupted clean pass, which may already have dropped what the block was made from.
        if self._draft is None:
            self._draft = self._denoise(block)
        latents = self._draft
        self._memory.forget_before_cut(block)
        self._remember(block, latents)
        self._memory.end(block)
        self._draft = None
        self._position += 1
        return Block(block, latents)

    def snapshot(self) -> Snapshot:
        """The state before the next block. Raises RuntimeError if an interrupt left a block half remembered."""
        if self._draft is not None:
            raise RuntimeError(f"block {self._position} is half remembered; draw it with next() before a snapshot")
        return Snapshot(self._kind(), self._memory.window.state(), self._memory.tensors())

    def restore(self, snapshot: Snapshot) -> None:
        """Goes to the snapshot's block. What follows is bit for bit what its own run would have made.

        Seeds, steps and later prompts may differ. Raises ValueError if the snapshot belongs to another kind of run.
        """
        snapshot.check_kind(self._kind())
        if snapshot.next_block > len(self.plan.blocks):
            raise ValueError(
                f"the snapshot stands at block {snapshot.next_block}, the plan ends at {len(self.plan.blocks)}"
            )
        self._memory.restore(snapshot.window, snapshot.pools)
        self._position, self._draft = snapshot.next_block, None

    def _denoise(self, block: BlockSpec) -> Tensor:
        known = self._known(block)
        if known.shape[2] == block.frames:
            return known
        noise = self._noise(block, self._shape).to(self._model.device, torch.float32)
        x, flows = _clamped(noise, known), list[Tensor]()
        for index, t in enumerate(self._schedule.timesteps):
            if self._should_stop():
                raise StopIteration
            flow = self._flow(block, x, float(t), known.shape[2])
            x0 = _clamped(x - self._schedule.sigmas[index] * flow, known)
            flows.append(flow)
            x = _clamped(self._schedule.advance(noise, flows), known)
            if self._on_step is not None:
                self._on_step(Step(block, index + 1, len(self._schedule.timesteps), x0))
        if not bool(torch.isfinite(x).all()):
            raise NotFiniteError(block)
        return x

    def _flow(self, block: BlockSpec, x: Tensor, t: float, known: int) -> Tensor:
        """Guided flow of one step, float32; the first `known` frames are shown as clean."""
        times = self._times(t)
        times[:, :known] = 0
        positions = self._memory.positions(block, self._cuts[block.index])
        flows = [
            self._model(x.to(self._model.dtype), times, text, kv, positions).float()
            for text, kv in self._memory.calls(block, clean=False)
        ]
        if len(flows) == 1:
            return flows[0]
        wanted, unwanted = flows
        return unwanted + self._guidance * (wanted - unwanted)

    def _remember(self, block: BlockSpec, latents: Tensor) -> None:
        positions = self._memory.positions(block, self._cuts[block.index])
        for text, kv in self._memory.calls(block, clean=True):
            self._model.remember(latents.to(self._model.dtype), self._times(0.0), text, kv, positions)

    def _times(self, t: float) -> Tensor:
        return torch.full((self._shape.batch, self._shape.frames), t, device=self._model.device)

    def _known(self, block: BlockSpec) -> Tensor:
        # Kept on the host: a film that goes on after a long stop has all its blocks in here.
        return self._prefix[:, :, block.start : block.start + block.frames].to(self._model.device)

    def _kind(self) -> dict[str, str]:
        return {
            "model": str(self._model.config),
            "block": str(self._shape),
            "memory": str(self._memory.config),
            "guided": str(self._guidance != 1.0),
        }


def _clamped(x: Tensor, known: Tensor) -> Tensor:
    """x with its first frames replaced by the known ones."""
    return torch.cat((known, x[:, :, known.shape[2] :]), dim=2) if known.shape[2] else x
