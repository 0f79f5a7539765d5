"""A film: a lazy sequence of blocks that stores every sampled block, so that a second run samples nothing."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..sampling import Generation, Step
from ..script import BlockPlan
from ..script.storyboard import storyboard_blocks
from ..types import Block, BlockSpec
from .block_store import BlockStore, MemoryStore
from .live_script import LiveScript
from .sampler_settings import OnStep, ShouldStop, StartGeneration

Run = Generator[Block, None, Generation | None]
"""Yields the blocks of a film; returns the generation after the last block, or None if this run sampled nothing."""


@dataclass(slots=True)
class RunReport:
    """Indices of the blocks that a run read (`stored`) and sampled; `replayed` counts passes that only rebuilt K/V."""

    stored: list[int] = field(default_factory=list[int])
    sampled: list[int] = field(default_factory=list[int])
    replayed: int = 0

    def share_of_calls(self, steps: int) -> float:
        """The run's model calls as a share of those for sampling all its blocks: `steps` and a clean pass for each."""
        blocks = len(self.stored) + len(self.sampled)
        return (len(self.sampled) * (steps + 1) + self.replayed) / max(1, blocks * (steps + 1))


class Film:
    """A lazy sequence of blocks.

        film = Film(plan, start_generation)
        for block in film.run():      # each block is sampled when it is requested
            ...
        for block in film.run():      # each block is read from the store
            ...

    The KV cache exists only while a run samples. A run that is stopped, cancelled or fails leaves its finished blocks
    in the store, and the next run continues after them: repeated clean passes rebuild the same K/V, so that the film is
    the same bit for bit. Only one run may be active at a time.
    """

    def __init__(
        self,
        plan: BlockPlan,
        start_generation: StartGeneration | None,
        store: BlockStore | None = None,
        *,
        start: Tensor | None = None,
        earlier: Film | None = None,
        storyboard: Film | None = None,
        live: LiveScript | None = None,
    ) -> None:
        """Makes a film; nothing is sampled before `run`.

        start_generation: None for a film that adds no block to `earlier`. store: host memory by default. start: known
        latents `[1, C, F, H, W]`, normalised, of the film's beginning, for example a start image. earlier: the film
        that this one continues; its blocks are the first blocks of this film. storyboard: a film that is run first; its
        blocks become the first blocks of the shots. live: a script that may change while the film is sampled; `plan`
        follows it at every new shot.
        """
        self.live, self.report = live, RunReport()
        self._plan, self._start_generation, self._start = plan, start_generation, start
        self._store: BlockStore = MemoryStore() if store is None else store
        self._earlier, self._storyboard = earlier, storyboard
        self._first_of_shots: dict[int, Tensor] = {}
        self._pass_blocks_to_earlier()

    @classmethod
    def from_latents(cls, plan: BlockPlan, latents: Tensor) -> Film:
        """Makes a complete film of latents `[1, C, F, H, W]`, normalised.

        Raises ValueError if the plan has another number of latent frames.
        """
        if latents.shape[2] != plan.latent_frames:
            raise ValueError(f"got {latents.shape[2]} latent frames for a plan of {plan.latent_frames}: plan that many")
        film = cls(plan, None)
        pieces = latents.to("cpu", torch.float32).split(plan.block_frames, dim=2)
        film.adopt([Block(spec, piece.clone()) for spec, piece in zip(plan.blocks, pieces, strict=True)])
        return film

    @property
    def plan(self) -> BlockPlan:
        """The plan of the film. A live script changes the plans of its film and of films that continue it."""
        return self._plan if self._earlier is None else self._plan.behind(self._earlier.plan.blocks)

    @property
    def finished(self) -> int:
        """The number of blocks that are stored before the first missing one."""
        return self._earlier.finished if self._earlier and not self._added_blocks else self._store.finished(self.plan)

    @property
    def available(self) -> int:
        """The number of blocks that the next run yields without sampling, from this store or the earlier film's."""
        return self.finished if self._earlier is None else max(self.finished, self._earlier.available)

    @property
    def complete(self) -> bool:
        """Whether every block is stored."""
        return self.finished == len(self.plan.blocks)

    @property
    def needs_model(self) -> bool:
        """Whether the next run samples. If every block is stored, a take reads them once to find damaged blocks."""
        self._pass_blocks_to_earlier()
        if self._earlier is not None and not self._added_blocks:
            return self._earlier.needs_model
        return not (self.complete and self._store.is_intact(self.plan))

    def run(self, on_step: OnStep | None = None, should_stop: ShouldStop | None = None) -> Run:
        """Yields the blocks in order, latents `[1, C, F, H, W]` float32 on the CPU, until `should_stop()` is true.

        Returns the generation, whose KV cache a film that continues this one can use. Raises what `generate` and the
        store raise.
        """
        self._pass_blocks_to_earlier()
        with nullcontext() if self._store.is_locked or not self.needs_model else self._store.locked():
            return (yield from self._run(on_step, should_stop))

    def finished_blocks(self) -> Sequence[Block]:
        """Reads the blocks that `finished` counts."""
        return self._earlier.finished_blocks() if self._earlier and not self._added_blocks else self._stored_blocks()

    def adopt(self, blocks: Sequence[Block]) -> None:
        """Stores the film's first blocks, which another film has; blocks that are stored already stay unchanged.

        Raises ValueError if the blocks are not the first blocks of this film's plan.
        """
        if tuple(block.spec for block in blocks) != self.plan.blocks[: len(blocks)]:
            raise ValueError("the blocks are not the first blocks of this film: plan the film that they were made for")
        if self._storyboard is not None:
            pairs = zip(self._storyboard.plan.blocks, self._storyboard_indices, strict=True)
            self._storyboard.adopt([Block(spec, blocks[at].latents) for spec, at in pairs if at < len(blocks)])
        if self._earlier is not None:
            before = len(self._earlier.plan.blocks)
            self._earlier.adopt(blocks[:before])
            if len(blocks) < before or not self._earlier.complete:
                return
        self._store.adopt(blocks)

    @property
    def _added_blocks(self) -> tuple[BlockSpec, ...]:
        """The blocks after those of the earlier film."""
        return self.plan.blocks[0 if self._earlier is None else len(self._earlier.plan.blocks) :]

    @property
    def _storyboard_indices(self) -> tuple[int, ...]:
        """Indices in this film of the storyboard's blocks."""
        after = 0 if self._earlier is None else len(self._earlier.plan.blocks)
        return tuple(block.index for block in storyboard_blocks(self.plan, after))

    def _stored_blocks(self) -> tuple[Block, ...]:
        return self._store.finished_blocks(self.plan)

    def _pass_blocks_to_earlier(self) -> None:
        """Passes blocks that only this film's store has to the earlier film, as after a restart or a retake."""
        if self._earlier is None or self._earlier.complete:
            return
        if self._store.finished(self.plan) > self._earlier.available:
            before = len(self._earlier.plan.blocks)
            self._earlier.adopt(self._stored_blocks()[:before])

    def _run(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Run:
        self.report, only_stored = RunReport(), False
        if self._storyboard is not None and self.needs_model:
            for block in self._storyboard.run(self._storyboard_steps(on_step), should_stop):
                self._first_of_shots[self._storyboard_indices[block.index]] = block.latents
            only_stored = not self._storyboard.complete
        self._store.begin_run()
        first, inherited = 0, None
        if self._earlier is not None and not (self._added_blocks and self._has_all(self._earlier.plan)):
            stop = should_stop if not only_stored else lambda: True
            inherited = yield from self._run_earlier(self._earlier, on_step, stop)
            if not self._earlier.complete:
                return inherited
            first = len(self._earlier.plan.blocks)
        added = self._run_added(first, inherited, on_step, should_stop, only_stored)
        del inherited  # otherwise this frame keeps its KV cache alive beside that of the next generation
        return (yield from added)

    def _run_earlier(self, earlier: Film, on_step: OnStep | None, should_stop: ShouldStop | None) -> Run:
        blocks = earlier.run(on_step, should_stop)
        try:
            while True:
                try:
                    block = next(blocks)
                except StopIteration as end:
                    return end.value
                self._store.save(block, self.plan)
                self.report.stored.append(block.index)
                yield block
        finally:
            blocks.close()

    def _run_added(
        self,
        first: int,
        inherited: Generation | None,
        on_step: OnStep | None,
        should_stop: ShouldStop | None,
        only_stored: bool,
    ) -> Run:
        """Yields the blocks from `first` on, read from the store or sampled by one generation."""
        generation: Generation | None = None
        for index in range(first, len(self.plan.blocks)):
            block = self._store.find(self.plan.blocks[index])
            if block is None:
                if only_stored:
                    break
                if generation is None:
                    generation, inherited = self._generation(index, inherited, on_step, should_stop), None
                generation = self._replay(generation, index)
                generation = self._follow_live(generation, index, on_step, should_stop)
                block = self._sample(generation, index)
                if block is None:
                    break
                self.report.sampled.append(index)
            else:
                self.report.stored.append(index)
            yield block
        return generation or inherited

    def _generation(
        self, index: int, inherited: Generation | None, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        """Starts a generation before a block, with the KV cache of the earlier film or of the last stored snapshot."""
        if self._start_generation is None:
            raise RuntimeError("this film was made without start_generation and cannot sample its missing blocks")
        start = self._store.start_image() if self._start is None else self._start
        self._start = start
        generation = self._start_generation(self.plan, self._known, on_step, should_stop)
        if inherited is None or not generation.continue_from(inherited):
            self._store.restore(generation, self.plan.blocks[index])
        return generation

    def _replay(self, generation: Generation, index: int) -> Generation:
        """Advances the generation to a block by clean passes over the stored blocks; a stop ends this early."""
        while generation.position < index:
            self._store.save_snapshot(generation, self.plan.blocks[generation.position], replayed=True)
            if next(generation, None) is None:
                break
            self.report.replayed += 1
        return generation

    def _follow_live(
        self, generation: Generation, index: int, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        """At the first block of a shot, returns a generation that follows the newest live script."""
        if self.live is None or generation.position != index or not self.plan.begins_shot(self.plan.blocks[index]):
            return generation
        plan = self.live.begin(self.plan.blocks[index].shot).behind(self.plan.blocks[:index])
        if plan.blocks == self.plan.blocks:
            return generation
        self._plan = plan
        assert self._start_generation is not None
        changed = self._start_generation(plan, self._known, on_step, should_stop)
        changed.continue_from(generation)
        return changed

    def _sample(self, generation: Generation, index: int) -> Block | None:
        """Samples and stores a block; returns None after a stop."""
        if generation.position != index:
            return None
        self._store.save_snapshot(generation, self.plan.blocks[index], replayed=False)
        sampled = next(generation, None)
        if sampled is None:
            return None
        block = Block(sampled.spec, sampled.latents.to("cpu", torch.float32))
        self._store.save(block, self.plan)
        return block

    def _known(self, spec: BlockSpec) -> Tensor | None:
        """The latents of a block that this run already has, or those frames of it that `start` gives."""
        if spec.index in self.report.stored or spec.index in self.report.sampled:
            return self._store.read(spec)
        if spec.index in self._first_of_shots:
            return self._first_of_shots[spec.index]
        return None if self._start is None else self._start[:, :, spec.start : spec.start + spec.frames]

    def _has_all(self, plan: BlockPlan) -> bool:
        """Whether the store has every block of the earlier film."""
        return self._store.finished(self.plan) >= len(plan.blocks)

    def _storyboard_steps(self, on_step: OnStep | None) -> OnStep | None:
        """Wraps `on_step` so that the storyboard's steps name the blocks of this film."""
        if on_step is None:
            return None

        def report(step: Step) -> None:
            block = self.plan.blocks[self._storyboard_indices[step.block.index]]
            on_step(replace(step, block=block, storyboard=True))

        return report
