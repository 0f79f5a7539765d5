"""The sampling loop: each block is denoised, then a clean pass at t = 0 writes its K/V into the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ..memory import ALL, FilmKVCache, WindowState, original_of
from ..model import FlowModel
from ..oom import OutOfMemoryError, retry_on_oom
from ..transfer import ASYNCHRONOUS, to_device, to_host
from ..types import Block, BlockSpec, LatentShape
from .branches import flows_of, write_all_kv
from .noise import NoiseSource
from .seam import Seam, align, overlap
from .snapshot import Snapshot
from .unipc import Schedule

KnownLatents = Callable[[BlockSpec], Tensor | None]
"""Returns the leading latent frames of a block that are given, `[B, C, F, H, W]` normalised: all, some, none or None.

Given frames are not sampled. They are fed to the model as clean frames, with timestep 0.
"""


class Plan(Protocol):
    """The blocks of a film in order, all of one length. `BlockPlan` implements it."""

    @property
    def blocks(self) -> tuple[BlockSpec, ...]:
        """The blocks in film order."""
        ...

    @property
    def block_frames(self) -> int:
        """Latent frames in every block."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """Progress report: step `index` of `steps`, counted from 1, of `block` is done.

    x0: the prediction of the finished latents, `[B, C, F, H, W]`. storyboard: whether the block belongs to a
    storyboard, which is sampled before the film and holds the first block of each shot.
    """

    block: BlockSpec
    index: int
    steps: int
    x0: Tensor
    storyboard: bool = False


class NotFiniteError(RuntimeError):
    """Sampling `block` gave NaN or infinity. The blocks before it are valid."""

    def __init__(self, block: BlockSpec) -> None:
        last = block.start + block.frames - 1
        super().__init__(
            f"block {block.index} (shot {block.shot + 1}, latent frames {block.start} to {last}) contains NaN or "
            "infinite values; the blocks before it are kept. Check the checkpoint and its dtype"
        )
        self.block = block


class Generation(Iterator[Block]):
    """Iterator over the blocks of a film that can be interrupted and continued.

    A block is returned on the host as soon as it is denoised, so that decoding can start. Its clean pass runs when the
    next block is requested; the clean pass of the last block runs when the iterator ends. A GPU gets its clean pass
    before the host waits for the block, so that it has work until the next block is requested. After an exception, an
    interrupt or a stop, the next call to `next` starts the unfinished block or clean pass again, and the film is the
    same to the bit. If the device runs out of memory, memory is freed and the block or clean pass is run once more.
    """

    def __init__(
        self,
        model: FlowModel,
        plan: Plan,
        cache: FilmKVCache,
        schedule: Schedule,
        shape: LatentShape,
        guidance: float,
        noise: NoiseSource,
        known: KnownLatents,
        on_step: Callable[[Step], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        free: Callable[[], None] | None = None,
        seam: Seam = "plain",
        cast: Iterable[Block] = (),
    ) -> None:
        """shape: of one block. The other arguments are those of `generate`."""
        self.plan = plan
        self._model = model
        self._cache = cache
        self._schedule = schedule
        self._shape = shape
        self._guidance = guidance
        self._noise = noise
        self._known_latents = known
        self._on_step = on_step
        self._should_stop = should_stop or (lambda: False)
        self._free = free
        self._seam: Seam = seam
        self._cast = {block.index: block for block in cast}
        self._cuts = tuple(accumulate(int(block.cut) for block in plan.blocks))
        self._position = 0
        # The block that was returned last, on the device, until its clean pass is done.
        self._newest: Block | None = None
        # Whether the device has the clean pass of the newest block already.
        self._runs_ahead, self._is_ahead = model.device.type in ASYNCHRONOUS, False
        # On the host: the blocks that the plan recalls later, as far as this generation has returned them.
        self._recallable = frozenset(index for block in plan.blocks for index in block.recalled)
        self._kept: dict[int, Tensor] = {}
        # The last latent frame of the block before `position`, `[B, C, 1, H, W]`, or None before the first block.
        self._last: Tensor | None = None

    @property
    def position(self) -> int:
        """Index of the next block."""
        return self._position

    @property
    def done(self) -> bool:
        """Whether every block of the plan was returned. False after a stop."""
        return self._position == len(self.plan.blocks)

    @torch.no_grad()
    def __next__(self) -> Block:
        """Returns the next block, latents `[B, C, F, H, W]` float32 on the host.

        Raises NotFiniteError, and OutOfMemoryError if the second attempt fails too.
        """
        if self._should_stop():
            raise StopIteration
        self.finish_clean_pass()
        if self.done:
            raise StopIteration
        block = self.plan.blocks[self._position]
        if block.index == 0 or self.plan.blocks[block.index - 1].shot != block.shot:
            self._recall(block)
        self._cache.begin(block)
        latents = retry_on_oom(lambda: self._denoise(block), self._free, f"block {block.index} (shot {block.shot + 1})")
        on_host, finite = to_host(latents), to_host(torch.isfinite(latents).all())
        is_ahead = self._runs_ahead and self._run_ahead(block, latents)
        if not bool(finite.wait()):
            raise NotFiniteError(block)
        self._newest, self._last, self._is_ahead = Block(block, latents), latents[:, :, -1:].clone(), is_ahead
        self._position += 1
        finished = on_host.wait_pageable()
        if block.index in self._recallable:
            self._kept[block.index] = finished
        return Block(block, finished)

    def skip_towards(self, index: int) -> None:
        """Skips blocks on which block `index` does not depend: with independent shots those before its cut.

        Nothing happens before the global sink is finished.
        """
        cut = max((block.index for block in self.plan.blocks[: index + 1] if block.cut), default=0)
        if self._position < cut:
            self.finish_clean_pass()
            if self._cache.skip_to(self.plan.blocks[cut]):
                self._position, self._last = cut, None

    @torch.no_grad()
    def finish_clean_pass(self) -> None:
        """Runs the clean pass of the newest block, unless it is done already."""
        if self._newest is None:
            return
        block, latents = self._newest.spec, self._newest.latents
        # `_newest` is kept until the pass is done, because a recache evicts the frames needed to denoise it again.
        self._cache.recache_at_cut(block)
        if not self._is_ahead:
            self._clean_pass(block, latents)
        self._cache.end(block)
        self._newest, self._is_ahead = None, False

    def _recall(self, block: BlockSpec) -> None:
        """Enters the blocks that the shot of its first block recalls, each by a clean pass over its latents."""
        self._cache.recall(block)
        for entering in self._cache.window.entering:
            index = original_of(entering)
            recalled = self.plan.blocks[index] if index >= 0 else self._cast[index].spec
            latents = self._latents_of(recalled, block)
            retry_on_oom(
                lambda spec=recalled, x=latents: self._write_recalled(spec, x, block),
                self._free,
                f"the clean pass of {_name(index)}, which shot {block.shot + 1} recalls",
            )
            self._cache.entered()

    def _latents_of(self, recalled: BlockSpec, block: BlockSpec) -> Tensor:
        """The latents of a finished block or a cast file, `[B, C, F, H, W]` float32 on the model's device."""
        if recalled.index in self._cast:
            films = self._cast[recalled.index].latents.expand(self._shape.as_tuple())
            return to_device(films.float(), self._model.device)
        latents = self._kept.get(recalled.index)
        if latents is None:
            latents = self._known_latents(recalled)
        if latents is None or latents.shape[2] != recalled.frames:
            raise ValueError(
                f"shot {block.shot + 1} recalls block {recalled.index}, whose latents are neither known nor sampled "
                "here; give them with `known`, or start at the beginning of the film"
            )
        return to_device(latents.float(), self._model.device)

    def _write_recalled(self, recalled: BlockSpec, latents: Tensor, block: BlockSpec) -> None:
        """Writes the K/V of a recalled block at t = 0, for each branch of guidance."""
        cuts_now = self._cuts[block.index]
        cuts = self._cuts[recalled.index] if recalled.index >= 0 else cuts_now  # a cast file is of no shot
        positions = self._cache.recalled_positions(recalled, cuts, block, cuts_now)
        calls, timesteps = self._cache.recall_calls(recalled), self._timesteps(0.0, recalled.frames)
        write_all_kv(self._model, latents.to(self._model.dtype), timesteps, calls, positions)

    def _run_ahead(self, block: BlockSpec, latents: Tensor) -> bool:
        """Queues the clean pass of a block that is not checked yet; returns whether it is done.

        It writes to the block's slot only, so that the block can be denoised again. A recache could not be undone.
        """
        if self._cache.recaches(block):
            return False
        with suppress(OutOfMemoryError):  # then it is tried again when the next block is requested
            self._clean_pass(block, latents)
            return True
        return False

    def snapshot(self, film: int | None = None) -> Snapshot:
        """Copies the state before the next block, after running the newest block's clean pass if it is pending.

        film: of a batch, from 0; the snapshot is then one of this film alone.
        """
        self.finish_clean_pass()
        films = ALL if film is None else slice(film, film + 1)
        last = self._last[films].cpu() if self._seam == "align" and self._last is not None else None
        kind = self._kind(None if film is None else 1)
        return Snapshot(kind, self._cache.window.state(), self._cache.tensors(films), last)

    def restore(self, snapshot: Snapshot) -> None:
        """Continues from a snapshot. The next blocks equal those of the run that made it, to the bit.

        Seeds, steps and later prompts may differ. Raises ValueError if model, block shape, cache settings or guidance
        differ, if the plan ends before the snapshot's block, if the next block needs a frame that a snapshot of plain
        seams does not have, or if the snapshot is damaged.
        """
        self._restore(snapshot, self._kind(), ALL)
        self._last = None if snapshot.last is None else to_device(snapshot.last, self._model.device)

    def restore_films(self, snapshots: Iterable[Snapshot]) -> None:
        """Continues each film of a batch from a snapshot of this film alone, which are taken one by one.

        Raises ValueError as `restore`, and if the snapshots are not of one block, or as many as the films.
        """
        last, windows, films = list[Tensor](), set[WindowState](), 0
        for snapshot in snapshots:
            self._restore(snapshot, self._kind(1), slice(films, films + 1))
            last += [] if snapshot.last is None else [to_device(snapshot.last, self._model.device)]
            windows.add(snapshot.window)
            films += 1
        if films != self._shape.batch or len(windows) > 1 or len(last) not in (0, films):
            raise ValueError(
                f"the snapshots do not fit a batch: {films} of {self._shape.batch} films, before "
                f"{len(windows)} different states"
            )
        self._last = torch.cat(last) if last else None

    def _restore(self, snapshot: Snapshot, kind: dict[str, str], films: slice) -> None:
        """Restores the K/V of some films of a batch, and the position."""
        snapshot.check_kind(kind)
        if snapshot.next_block > len(self.plan.blocks):
            raise ValueError(
                f"the snapshot continues at block {snapshot.next_block}, but the plan has {len(self.plan.blocks)} "
                "blocks; use a longer plan or an earlier snapshot"
            )
        rest = self.plan.blocks[snapshot.next_block :]
        if rest and overlap(self._seam, rest[0], 0) and snapshot.last is None:
            raise ValueError(
                f"the snapshot was made with seam plain and has no frame that block {rest[0].index} could be aligned "
                "to; use seam plain, or a snapshot before a cut"
            )
        try:
            self._cache.restore(snapshot.window, snapshot.pools, films)
        except RuntimeError as error:
            raise ValueError(f"the snapshot is damaged: {error}") from error
        self._position, self._newest, self._is_ahead, self._kept = snapshot.next_block, None, False, {}

    def continue_from(self, other: Generation) -> bool:
        """Continues at the position of `other` and takes its K/V without a copy, which ends `other`.

        Returns False and changes nothing if the two differ in model object, block shape, cache settings, guidance or
        negative prompt, or if this plan ends before that position.
        """
        compatible = self._model == other._model and self._kind() == other._kind()
        if not compatible or other._position > len(self.plan.blocks):
            return False
        other.finish_clean_pass()
        if not self._cache.continue_from(other._cache):
            return False
        # The model, too, whose CUDA graphs are of these K/V.
        self._model, self._position, self._newest, self._last = other._model, other._position, None, other._last
        self._kept = other._kept
        other._position = len(other.plan.blocks)
        return True

    def _denoise(self, block: BlockSpec) -> Tensor:
        """Latents of the block, `[B, C, F, H, W]` float32."""
        known = self._known(block)
        if known.shape[2] == block.frames:
            return known
        front = overlap(self._seam, block, known.shape[2])
        noise = self._noise_of(block, front)
        x, flows = _replace_known(noise, known), list[Tensor]()
        for index, t in enumerate(self._schedule.timesteps):
            if self._should_stop():
                raise StopIteration
            flow = self._flow(block, x, float(t), known.shape[2])
            x0 = _replace_known(x - self._schedule.sigmas[index] * flow, known)
            flows.append(flow)
            x = _replace_known(self._schedule.advance(noise, flows), known)
            if self._on_step is not None:
                self._on_step(Step(block, index + 1, len(self._schedule.timesteps), x0[:, :, front:]))
        if front:
            assert self._last is not None  # a block before this one is finished
            x = align(x, self._last)
        return x

    def _flow(self, block: BlockSpec, x: Tensor, t: float, known: int) -> Tensor:
        """Guided flow of one step, `[B, C, F, H, W]` float32; the first `known` frames get timestep 0."""
        front = x.shape[2] - block.frames
        timesteps = self._timesteps(t, x.shape[2])
        timesteps[:, :known] = 0
        positions = self._cache.positions(block, self._cuts[block.index], front)
        calls = self._cache.calls(block, clean=False, overlap=front)
        flows = flows_of(self._model, x.to(self._model.dtype), timesteps, calls, positions)
        if len(flows) == 1:
            return flows[0]
        positive, negative = flows
        return negative + self._guidance * (positive - negative)

    def _clean_pass(self, block: BlockSpec, latents: Tensor) -> None:
        retry_on_oom(lambda: self._write_kv(block, latents), self._free, f"the clean pass of block {block.index}")

    def _write_kv(self, block: BlockSpec, latents: Tensor) -> None:
        """The clean pass: writes the block's K/V at t = 0, for each branch of guidance."""
        positions = self._cache.positions(block, self._cuts[block.index])
        calls, timesteps = self._cache.calls(block, clean=True), self._timesteps(0.0, block.frames)
        write_all_kv(self._model, latents.to(self._model.dtype), timesteps, calls, positions)

    def _noise_of(self, block: BlockSpec, front: int) -> Tensor:
        """Noise of the block and of the last `front` frames of the block before, `[B, C, front + F, H, W]` float32.

        The noise of a given block is what the source gives for it, too: a video was not made from noise.
        """
        noise = self._noise(block, self._shape)
        if front:
            before = self._noise(self.plan.blocks[block.index - 1], self._shape)
            noise = torch.cat((before[:, :, -front:], noise), dim=2)
        return to_device(noise.float(), self._model.device)

    def _timesteps(self, t: float, frames: int) -> Tensor:
        """`[1, frames]` filled with t, for every film of a batch."""
        return torch.full((1, frames), t, device=self._model.device)

    def _known(self, block: BlockSpec) -> Tensor:
        """The block's given leading frames, `[B, C, 0 … F, H, W]`, float32 on the model's device."""
        known = self._known_latents(block)
        if known is None or not known.shape[2]:
            return torch.empty(self._shape.with_frames(0).as_tuple(), device=self._model.device)
        # Copied to the device one block at a time: all blocks of a long film would not fit there.
        return to_device(known.float(), self._model.device)

    def _kind(self, batch: int | None = None) -> dict[str, str]:
        """The settings that two runs must share to exchange K/V. batch: of the other run, by default as this one's."""
        return {
            "model": str(self._model.config),
            "block": str(self._shape if batch is None else self._shape.with_batch(batch)),
            "memory": str(self._cache.config),
            "guided": str(self._guidance != 1.0),
        }


def _name(recalled: int) -> str:
    """Names a recalled block in a message."""
    return f"block {recalled}" if recalled >= 0 else f"cast file {-recalled}"


def _replace_known(x: Tensor, known: Tensor) -> Tensor:
    """x `[B, C, F, H, W]` with its first frames replaced by `known`, `[B, C, 0 … F, H, W]`."""
    return torch.cat((known, x[:, :, known.shape[2] :]), dim=2) if known.shape[2] else x
