"""A film: a lazy sequence of blocks that stores what it makes, so that running it again costs nothing."""

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
"""The blocks of a film; its return value is the generation behind the last one, if this run sampled any."""


@dataclass(slots=True)
class RunReport:
    """What the newest run did: block indices that were stored and sampled, and clean passes that only rebuilt K/V."""

    stored: list[int] = field(default_factory=list[int])
    sampled: list[int] = field(default_factory=list[int])
    replayed: int = 0

    def share_of_calls(self, steps: int) -> float:
        """Model calls over those that sampling every one of these blocks takes: `steps` and a clean pass each."""
        blocks = len(self.stored) + len(self.sampled)
        return (len(self.sampled) * (steps + 1) + self.replayed) / max(1, blocks * (steps + 1))


class Film:
    """A lazy sequence of blocks.

        film = Film(plan, start_generation)
        for block in film.run():      # sampled as they are asked for
            ...
        for block in film.run():      # read from the store
            ...

    Keys and values live only while a run samples. A run that was stopped, cancelled or failed leaves its finished
    blocks in the store, and the next run continues after them: repeated clean passes rebuild the same K/V, so the film
    is the same bit for bit. Only one run may be active at a time.
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
        """start_generation: None for a film that adds no block to `earlier`. store: host memory by default.

        start: known latents at the film's beginning, `[1, C, F, H, W]` normalised, as of a start image. earlier: the
        film that this one continues; its blocks are this one's first. storyboard: run first; its blocks begin the shots
        of this film. live: a script that may change while the film is made; `plan` follows it at every new shot.
        """
        self.live, self.report = live, RunReport()
        self._plan, self._start_generation, self._start = plan, start_generation, start
        self._store: BlockStore = MemoryStore() if store is None else store
        self._earlier, self._storyboard = earlier, storyboard
        self._first_blocks: dict[int, Tensor] = {}
        self._give_stored_to_earlier()

    @classmethod
    def known(cls, plan: BlockPlan, latents: Tensor) -> Film:
        """A complete film of given latents `[1, C, F, H, W]`, normalised.

        Raises ValueError where their number of frames is not the plan's.
        """
        if latents.shape[2] != plan.latent_frames:
            raise ValueError(f"{latents.shape[2]} latent frames are no film of {plan.latent_frames}: plan their length")
        film = cls(plan, None)
        pieces = latents.to("cpu", torch.float32).split(plan.block_frames, dim=2)
        film.adopt([Block(spec, piece.clone()) for spec, piece in zip(plan.blocks, pieces, strict=True)])
        return film

    @property
    def plan(self) -> BlockPlan:
        """The blocks of the film. The plan of a live film, or of one that continues it, changes while it is made."""
        return self._plan if self._earlier is None else self._plan.with_first_blocks(self._earlier.plan.blocks)

    @property
    def finished(self) -> int:
        """How many blocks are stored before the first one that is not."""
        return self._earlier.finished if self._earlier and not self._added else self._store.finished(self.plan)

    @property
    def available(self) -> int:
        """How many blocks the next run has without sampling: its own or those of the earlier film."""
        return self.finished if self._earlier is None else max(self.finished, self._earlier.available)

    @property
    def complete(self) -> bool:
        """Whether every block is stored."""
        return self.finished == len(self.plan.blocks)

    @property
    def needs_model(self) -> bool:
        """Whether the next run samples. A take whose blocks are all stored is read once to find damaged ones."""
        self._give_stored_to_earlier()
        if self._earlier is not None and not self._added:
            return self._earlier.needs_model
        return not (self.complete and self._store.is_intact(self.plan))

    def run(self, on_step: OnStep | None = None, should_stop: ShouldStop | None = None) -> Run:
        """The film's blocks in order, latents float32 on the CPU; ends early where `should_stop` returns true.

        A film that continues this one takes over the returned generation. Raises what `generate` and the store raise.
        """
        self._give_stored_to_earlier()
        with nullcontext() if self._store.is_locked or not self.needs_model else self._store.locked():
            return (yield from self._run(on_step, should_stop))

    def finished_blocks(self) -> Sequence[Block]:
        """The blocks that are stored before the first one that is not."""
        return self._earlier.finished_blocks() if self._earlier and not self._added else self._stored_blocks()

    def adopt(self, blocks: Sequence[Block]) -> None:
        """Stores the film's first blocks, made elsewhere; blocks that are stored already stay.

        Raises ValueError for blocks of another film.
        """
        if tuple(block.spec for block in blocks) != self.plan.blocks[: len(blocks)]:
            raise ValueError("these blocks are no beginning of this film: plan the film that they were made for")
        if self._storyboard is not None:
            places = zip(self._storyboard.plan.blocks, self._places, strict=True)
            self._storyboard.adopt([Block(spec, blocks[at].latents) for spec, at in places if at < len(blocks)])
        if self._earlier is not None:
            before = len(self._earlier.plan.blocks)
            self._earlier.adopt(blocks[:before])
            if len(blocks) < before or not self._earlier.complete:
                return
        self._store.adopt(blocks)

    @property
    def _added(self) -> tuple[BlockSpec, ...]:
        """The blocks behind those of the earlier film."""
        return self.plan.blocks[0 if self._earlier is None else len(self._earlier.plan.blocks) :]

    @property
    def _places(self) -> tuple[int, ...]:
        """Indices in this film of the storyboard's blocks."""
        after = 0 if self._earlier is None else len(self._earlier.plan.blocks)
        return tuple(block.index for block in storyboard_blocks(self.plan, after))

    def _stored_blocks(self) -> tuple[Block, ...]:
        return self._store.finished_blocks(self.plan)

    def _give_stored_to_earlier(self) -> None:
        """Lets the earlier film use blocks that only this film's store has, as after a restart or a retake."""
        if self._earlier is None or self._earlier.complete:
            return
        if self._store.finished(self.plan) > self._earlier.available:
            before = len(self._earlier.plan.blocks)
            self._earlier.adopt(self._stored_blocks()[:before])

    def _run(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Run:
        self.report, only_stored = RunReport(), False
        if self._storyboard is not None and self.needs_model:
            for block in self._storyboard.run(self._storyboard_steps(on_step), should_stop):
                self._first_blocks[self._places[block.index]] = block.latents
            only_stored = not self._storyboard.complete
        self._store.begin_run()
        first, inherited = 0, None
        if self._earlier is not None and not (self._added and self._has(self._earlier.plan)):
            stop = should_stop if not only_stored else lambda: True
            inherited = yield from self._run_earlier(self._earlier, on_step, stop)
            if not self._earlier.complete:
                return inherited
            first = len(self._earlier.plan.blocks)
        added = self._run_added(first, inherited, on_step, should_stop, only_stored)
        del inherited  # this frame would keep its K/V alive beside those of the next generation
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
        """The blocks from `first` on: read from the store, else sampled by one generation."""
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
        """A generation that can be brought to a block: the earlier film's K/V taken over, else a stored snapshot."""
        if self._start_generation is None:
            raise RuntimeError("a film of given latents has no generation to start")
        start = self._store.start_image() if self._start is None else self._start
        self._start = start
        generation = self._start_generation(self.plan, self._known, on_step, should_stop)
        if inherited is None or not generation.continue_from(inherited):
            self._store.restore(generation, self.plan.blocks[index])
        return generation

    def _replay(self, generation: Generation, index: int) -> Generation:
        """Brings the generation to a block by the clean passes of stored blocks; it stays behind after a stop."""
        while generation.position < index:
            self._store.save_snapshot(generation, self.plan.blocks[generation.position], replayed=True)
            if next(generation, None) is None:
                break
            self.report.replayed += 1
        return generation

    def _follow_live(
        self, generation: Generation, index: int, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        """At the first block of a shot: a generation that continues by the live script as it is now."""
        if self.live is None or generation.position != index or not self.plan.begins_shot(self.plan.blocks[index]):
            return generation
        plan = self.live.begin(self.plan.blocks[index].shot).with_first_blocks(self.plan.blocks[:index])
        if plan.blocks == self.plan.blocks:
            return generation
        self._plan = plan
        assert self._start_generation is not None
        changed = self._start_generation(plan, self._known, on_step, should_stop)
        changed.continue_from(generation)
        return changed

    def _sample(self, generation: Generation, index: int) -> Block | None:
        """The block, sampled and stored; None after a stop."""
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
        """Latents of a block that this run has already, else the first frames that the film's start gives."""
        if spec.index in self.report.stored or spec.index in self.report.sampled:
            return self._store.read(spec)
        if spec.index in self._first_blocks:
            return self._first_blocks[spec.index]
        return None if self._start is None else self._start[:, :, spec.start : spec.start + spec.frames]

    def _has(self, plan: BlockPlan) -> bool:
        """Whether the store has every block of the earlier film."""
        return self._store.finished(self.plan) >= len(plan.blocks)

    def _storyboard_steps(self, on_step: OnStep | None) -> OnStep | None:
        """Reports steps of the storyboard with the blocks of this film that they make."""
        if on_step is None:
            return None

        def report(step: Step) -> None:
            block = self.plan.blocks[self._places[step.block.index]]
            on_step(replace(step, block=block, storyboard=True))

        return report
