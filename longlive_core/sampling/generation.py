"""A film in the making: the loop over blocks, each denoised and then remembered by a clean pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ..memory import FilmKVCache
from ..model import FlowModel
from ..oom import retry_on_oom
from ..types import Block, BlockSpec, LatentShape
from .noise import NoiseSource
from .snapshot import Snapshot
from .unipc import Schedule

KnownLatents = Callable[[BlockSpec], Tensor | None]
"""The latents of a block that need not be sampled, `[B, C, F, H, W]` normalised: all its frames, its first or none."""


class Plan(Protocol):
    """The blocks of a film, in order and of one length; `BlockPlan` is one."""

    @property
    def blocks(self) -> tuple[BlockSpec, ...]: ...

    @property
    def block_frames(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Step:
    """Progress: step `index` of `steps` of a block is done; `x0` `[B, C, F, H, W]` is what it will look like.

    storyboard: the block is made before its turn, for the film to begin a shot with.
    """

    block: BlockSpec
    index: int
    steps: int
    x0: Tensor
    storyboard: bool = False


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

    A block is handed on as soon as it is denoised, so that decoding it can begin; its clean pass runs when the next
    one is asked for, that of the last block at the iterator's end. After an exception, an interrupt or a stop, `next`
    goes on where it was, exactly as if nothing had happened. A device that has no room is freed of what it can spare
    and asked once more.
    """

    def __init__(
        self,
        model: FlowModel,
        plan: Plan,
        memory: FilmKVCache,
        schedule: Schedule,
        shape: LatentShape,
        guidance: float,
        noise: NoiseSource,
        known: KnownLatents,
        on_step: Callable[[Step], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        free: Callable[[], None] | None = None,
    ) -> None:
        self.plan = plan
        self._model = model
        self._memory = memory
        self._schedule = schedule
        self._shape = shape
        self._guidance = guidance
        self._noise = noise
        self._known_latents = known
        self._on_step = on_step
        self._should_stop = should_stop or (lambda: False)
        self._free = free
        self._cuts = tuple(accumulate(int(block.cut) for block in plan.blocks))
        self._position = 0
        self._newest: Block | None = None

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
        if self._should_stop():
            raise StopIteration
        self.finish_clean_pass()
        if self.done:
            raise StopIteration
        block = self.plan.blocks[self._position]
        self._memory.begin(block)
        latents = retry_on_oom(lambda: self._denoise(block), self._free, f"block {block.index} (shot {block.shot + 1})")
        self._newest = Block(block, latents)
        self._position += 1
        return self._newest

    @torch.no_grad()
    def finish_clean_pass(self) -> None:
        """Runs the clean pass of the newest block, where it is still to be run."""
        if self._newest is None:
            return
        block, latents = self._newest.spec, self._newest.latents
        # The block outlives an interrupted clean pass, which may already have dropped what it was made from.
        self._memory.recache_at_cut(block)
        retry_on_oom(lambda: self._remember(block, latents), self._free, f"the clean pass of block {block.index}")
        self._memory.end(block)
        self._newest = None

    def snapshot(self) -> Snapshot:
        """The state before the next block; the newest one's clean pass is run for it where it is to be run."""
        self.finish_clean_pass()
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
        try:
            self._memory.restore(snapshot.window, snapshot.pools)
        except RuntimeError as error:
            raise ValueError(f"the snapshot is damaged: {error}") from error
        self._position, self._newest = snapshot.next_block, None

    def continue_from(self, other: Generation) -> bool:
        """Goes on from where `other` stands, in its very memory, as `restore` does from a copy; `other` has ended.

        For a film that goes on from another in one go. False, and nothing is changed, where the runs are of two kinds
        or of two models: what another model remembers would not be what this one does.
        """
        alike = self._model == other._model and self._kind() == other._kind()
        if not alike or other._position > len(self.plan.blocks):
            return False
        other.finish_clean_pass()
        if not self._memory.continue_from(other._memory):
            return False
        self._position, self._newest = other._position, None
        other._position = len(other.plan.blocks)
        return True

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
            self._model.write_kv(latents.to(self._model.dtype), self._times(0.0), text, kv, positions)

    def _times(self, t: float) -> Tensor:
        return torch.full((self._shape.batch, self._shape.frames), t, device=self._model.device)

    def _known(self, block: BlockSpec) -> Tensor:
        """The block's first frames that need not be sampled: none, some or all of them."""
        # Kept on the host: a film that goes on after a long stop has all its blocks there.
        known = self._known_latents(block)
        if known is None:
            known = torch.empty(self._shape.with_frames(0).as_tuple())
        return known.to(self._model.device, torch.float32)

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
