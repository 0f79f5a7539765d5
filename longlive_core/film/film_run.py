"""One run of a film: blocks come from the store, from the earlier film, or from one generation."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..oom import is_out_of_memory
from ..sampling import Generation, Snapshot, Step
from ..types import Block, BlockSpec
from .batch_run import BatchRun
from .sampler_settings import OnStep, ShouldStop

if TYPE_CHECKING:
    from .film import Film

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


class StoppedError(Exception):
    """The run was stopped while the KV cache was rebuilt."""


class FilmRun:
    """One run of a film; see `Film.run`."""

    def __init__(self, film: Film, on_step: OnStep | None, should_stop: ShouldStop | None) -> None:
        """Prepares a run; nothing happens before `blocks` is iterated."""
        self.report = RunReport()
        self.film, self._on_step, self._should_stop = film, on_step, should_stop
        # The films for which `_generation` samples, too.
        self._beside: BatchRun | None = None
        self._generation: Generation | None = None
        self._inherited: Generation | None = None
        self._first_of_shots: dict[int, Tensor] = {}

    def blocks(self) -> Run:
        """Yields the film's blocks in order; returns the generation that a film that continues this one can use."""
        film, only_stored = self.film, not self._run_storyboard()
        film.store.begin_run()
        index = 0
        if film.earlier is not None and (film.mirrors_earlier or film.store.finished < film.first_index):
            yield from self._run_earlier(film.earlier, only_stored)
            if not film.earlier.complete:
                return self._inherited
            index = film.first_index
        while index < len(film.plan.blocks):
            if not only_stored:
                self._follow_live(index)
            block = self.find(index)
            if self._beside is not None and self._beside.parts_at(index, block):
                self._beside, self._generation = None, None
            if block is None and (only_stored or (block := self._sample(index)) is None):
                break
            yield block
            index += 1
        return self._generation or self._inherited

    def _run_storyboard(self) -> bool:
        """Samples the storyboard if the film needs its blocks; returns false if it was stopped on the way."""
        film = self.film
        if film.storyboard is None or not film.needs_model:
            return True
        indices = film.storyboard_indices
        for block in film.storyboard.run(self._storyboard_steps(), self._should_stop):
            self._first_of_shots[indices[block.index]] = block.latents
        return film.storyboard.complete

    def _run_earlier(self, earlier: Film, only_stored: bool) -> Generator[Block, None, None]:
        """Yields and stores the blocks of the earlier film, and inherits its generation."""
        run = earlier.run(self._on_step, (lambda: True) if only_stored else self._should_stop)
        try:
            while True:
                try:
                    block = next(run)
                except StopIteration as end:
                    self._inherited = end.value
                    return
                self.film.store.save(block, self.film.plan)
                self.report.stored.append(block.index)
                yield block
        finally:
            run.close()

    def beside(self, film: Film) -> FilmRun:
        """A run of another film that stops with this one."""
        return FilmRun(film, None, self._should_stop)

    def find(self, index: int) -> Block | None:
        """Reads a block from the store."""
        block = self.film.store.find(self.film.plan.blocks[index])
        if block is not None:
            self.report.stored.append(index)
        return block

    def save(self, index: int, latents: Tensor) -> Block:
        """Stores a sampled block, latents `[1, C, F, H, W]` float32 on the CPU."""
        block = Block(self.film.plan.blocks[index], latents)
        self.film.store.save(block, self.film.plan)
        self.report.sampled.append(index)
        return block

    def state_before(self, index: int) -> Snapshot:
        """The state of this film alone before a block, of which all earlier ones were found. Raises StoppedError."""
        generation = self._start(index)
        self._replay(generation, index)
        state = generation.snapshot()
        self.film.store.save_snapshot(lambda: state, self.film.plan.blocks[index], replayed=False)
        return state

    def _sample(self, index: int) -> Block | None:
        """Samples and stores a block, and that of the films beside this one; returns None after a stop."""
        batch, film = self._beside, self.film
        if self._generation is None and film.batch is not None:
            self._beside = batch = BatchRun(self, film.batch, index, self._should_stop)
        sampled = self._next(index)
        if sampled is None:
            return None
        latents = sampled.latents.to("cpu", torch.float32)
        return self.save(index, latents) if batch is None else batch.save(index, latents)

    def _next(self, index: int) -> Block | None:
        """Samples a block, of fewer films at once if the device runs out of memory; returns None after a stop."""
        while True:
            try:
                return next(self._generation_before(index), None)
            except StoppedError:
                return None
            except (RuntimeError, MemoryError) as error:
                if self._beside is None or self._beside.films == 1 or not is_out_of_memory(error):
                    raise
            # Outside the `except` block, because the traceback keeps every tensor alive inside it.
            self._generation = None
            self._beside.shrink()

    def _generation_before(self, index: int) -> Generation:
        """The generation before a block, whose snapshot is offered to the store. Raises StoppedError."""
        batch = None if self._beside is None or self._beside.films == 1 else self._beside
        if self._generation is None:
            self._generation = self._start(index) if batch is None else batch.start(index, self._on_step)
        generation, store = self._generation, self.film.store
        if batch is None:
            self._replay(generation, index)
            store.save_snapshot(generation.snapshot, self.film.plan.blocks[index], replayed=False)
        else:
            batch.save_snapshots(generation, index)
        return generation

    def _replay(self, generation: Generation, index: int) -> None:
        """Rebuilds the K/V before a block by clean passes over stored blocks. Raises StoppedError."""
        store, blocks = self.film.store, self.film.plan.blocks
        while generation.position < index:
            generation.skip_towards(index)
            if generation.position == index:
                return
            store.save_snapshot(generation.snapshot, blocks[generation.position], replayed=True)
            if next(generation, None) is None:
                raise StoppedError
            self.report.replayed += 1

    def _start(self, index: int) -> Generation:
        """Starts a generation before a block, with the K/V of the earlier film or of the last stored snapshot."""
        film, inherited = self.film, self._inherited
        self._inherited = None  # its K/V must not stay alive beside those of the new generation
        self.read_start()
        generation = self._new_generation()
        if inherited is None or not generation.continue_from(inherited):
            film.store.restore(generation, film.plan.blocks[index])
        return generation

    def read_start(self) -> None:
        """Reads the start image of the film, if its store has one."""
        if self.film.start is None:
            self.film.start = self.film.store.start_image()

    def _follow_live(self, index: int) -> None:
        """At the first block of a shot, stored or not, lets film and generation follow the newest live script."""
        film = self.film
        if film.live is None or not film.plan.begins_shot(film.plan.blocks[index]):
            return
        plan = film.live.begin(film.plan.blocks[index].shot).with_first_blocks(film.plan.blocks[:index])
        if plan.blocks == film.plan.blocks:
            return
        film.follow(plan)
        if self._generation is not None:
            changed = self._new_generation()
            changed.continue_from(self._generation)
            self._generation = changed

    def _new_generation(self) -> Generation:
        film = self.film
        if film.start_generation is None:
            raise RuntimeError("this film was made without start_generation and cannot sample its missing blocks")
        return film.start_generation(film.plan, self.known, self._on_step, self._should_stop)

    def known(self, spec: BlockSpec) -> Tensor | None:
        """The latents of a block that this run already has, or those frames of it that `start` gives."""
        film = self.film
        if spec.index in self.report.stored or spec.index in self.report.sampled:
            return film.store.read(spec)
        if spec.index in self._first_of_shots:
            return self._first_of_shots[spec.index]
        return None if film.start is None else film.start[:, :, spec.start : spec.start + spec.frames]

    def _storyboard_steps(self) -> OnStep | None:
        """Wraps `on_step` so that the storyboard's steps name the blocks of this film."""
        on_step, film = self._on_step, self.film
        if on_step is None:
            return None

        def report(step: Step) -> None:
            block = film.plan.blocks[film.storyboard_indices[step.block.index]]
            on_step(replace(step, block=block, storyboard=True))

        return report
