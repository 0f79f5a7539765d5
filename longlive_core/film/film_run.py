"""One run of a film: blocks come from the store, from the earlier film, or from one generation."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sampling import Generation, Step
from ..types import Block, BlockSpec
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


class FilmRun:
    """One run of a film; see `Film.run`."""

    def __init__(self, film: Film, on_step: OnStep | None, should_stop: ShouldStop | None) -> None:
        """Prepares a run; nothing happens before `blocks` is iterated."""
        self.report = RunReport()
        self._film, self._on_step, self._should_stop = film, on_step, should_stop
        self._generation: Generation | None = None
        self._inherited: Generation | None = None
        self._first_of_shots: dict[int, Tensor] = {}

    def blocks(self) -> Run:
        """Yields the film's blocks in order; returns the generation that a film that continues this one can use."""
        film, only_stored = self._film, not self._run_storyboard()
        film.store.begin_run()
        index = 0
        if film.earlier is not None and (film.mirrors_earlier or film.store.finished < film.first_index):
            yield from self._run_earlier(film.earlier, only_stored)
            if not film.earlier.complete:
                return self._inherited
            index = film.first_index
        while index < len(film.plan.blocks):
            block = film.store.find(film.plan.blocks[index])
            if block is not None:
                self.report.stored.append(index)
            elif only_stored or (block := self._sample(index)) is None:
                break
            else:
                self.report.sampled.append(index)
            yield block
            index += 1
        return self._generation or self._inherited

    def _run_storyboard(self) -> bool:
        """Samples the storyboard if the film needs its blocks; returns false if it was stopped on the way."""
        film = self._film
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
                self._film.store.save(block, self._film.plan)
                self.report.stored.append(block.index)
                yield block
        finally:
            run.close()

    def _sample(self, index: int) -> Block | None:
        """Samples and stores a block; returns None after a stop."""
        film = self._film
        generation = self._generation = self._generation or self._start(index)
        while generation.position < index:
            # A clean pass over a stored block rebuilds its K/V.
            film.store.save_snapshot(generation, film.plan.blocks[generation.position], replayed=True)
            if next(generation, None) is None:
                return None
            self.report.replayed += 1
        generation = self._generation = self._follow_live(generation)
        film.store.save_snapshot(generation, film.plan.blocks[index], replayed=False)
        sampled = next(generation, None)
        if sampled is None:
            return None
        block = Block(sampled.spec, sampled.latents.to("cpu", torch.float32))
        film.store.save(block, film.plan)
        return block

    def _start(self, index: int) -> Generation:
        """Starts a generation before a block, with the K/V of the earlier film or of the last stored snapshot."""
        film, inherited = self._film, self._inherited
        self._inherited = None  # its K/V must not stay alive beside those of the new generation
        if film.start is None:
            film.start = film.store.start_image()
        generation = self._new_generation()
        if inherited is None or not generation.continue_from(inherited):
            film.store.restore(generation, film.plan.blocks[index])
        return generation

    def _follow_live(self, generation: Generation) -> Generation:
        """At the first block of a shot, returns a generation that follows the newest live script."""
        film, index = self._film, generation.position
        if film.live is None or not film.plan.begins_shot(film.plan.blocks[index]):
            return generation
        plan = film.live.begin(film.plan.blocks[index].shot).with_first_blocks(film.plan.blocks[:index])
        if plan.blocks == film.plan.blocks:
            return generation
        film.follow(plan)
        changed = self._new_generation()
        changed.continue_from(generation)
        return changed

    def _new_generation(self) -> Generation:
        film = self._film
        if film.start_generation is None:
            raise RuntimeError("this film was made without start_generation and cannot sample its missing blocks")
        return film.start_generation(film.plan, self._known, self._on_step, self._should_stop)

    def _known(self, spec: BlockSpec) -> Tensor | None:
        """The latents of a block that this run already has, or those frames of it that `start` gives."""
        film = self._film
        if spec.index in self.report.stored or spec.index in self.report.sampled:
            return film.store.read(spec)
        if spec.index in self._first_of_shots:
            return self._first_of_shots[spec.index]
        return None if film.start is None else film.start[:, :, spec.start : spec.start + spec.frames]

    def _storyboard_steps(self) -> OnStep | None:
        """Wraps `on_step` so that the storyboard's steps name the blocks of this film."""
        on_step, film = self._on_step, self._film
        if on_step is None:
            return None

        def report(step: Step) -> None:
            block = film.plan.blocks[film.storyboard_indices[step.block.index]]
            on_step(replace(step, block=block, storyboard=True))

        return report
