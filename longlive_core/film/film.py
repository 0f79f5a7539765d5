"""A film: a lazy sequence of blocks that stores every sampled block, so that a second run samples nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ..script import BlockPlan
from ..script.storyboard import storyboard_blocks
from ..types import Block
from .block_store import BlockStore, MemoryStore
from .film_batch import FilmBatch
from .film_run import FilmRun, Run, RunReport
from .live_script import LiveScript
from .sampler_settings import OnStep, ShouldStop, StartGeneration


class Film:
    """A lazy sequence of blocks.

        film = Film(plan, start_generation)
        for block in film.run():      # each block is sampled when it is requested
            ...
        for block in film.run():      # each block is read from the store
            ...

    The KV cache exists only while a run samples. A run that is stopped, cancelled or fails leaves its finished blocks
    in the store, and the next run continues after them: repeated clean passes rebuild the same K/V, so that the film is
    the same bit for bit. Only one run may be active at a time. batch: films that may be sampled with this one.
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
        self.store = MemoryStore() if store is None else store
        self.start_generation, self.start = start_generation, start
        self.earlier, self.storyboard, self.live = earlier, storyboard, live
        self.report = RunReport()
        self.batch: FilmBatch | None = None
        self._plan = plan
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
        return self._plan if self.earlier is None else self._plan.with_first_blocks(self.earlier.plan.blocks)

    @property
    def finished(self) -> int:
        """The number of blocks that are stored before the first missing one."""
        return self.earlier.finished if self.earlier and self.mirrors_earlier else self.store.finished

    @property
    def available(self) -> int:
        """The number of blocks that the next run yields without sampling, from this store or the earlier film's."""
        return self.finished if self.earlier is None else max(self.finished, self.earlier.available)

    @property
    def complete(self) -> bool:
        """Whether every block is stored."""
        return self.finished == len(self.plan.blocks)

    @property
    def needs_model(self) -> bool:
        """Whether the next run samples. If every block is stored, a take reads them once to find damaged blocks."""
        self._pass_blocks_to_earlier()
        if self.earlier is not None and self.mirrors_earlier:
            return self.earlier.needs_model
        return not (self.complete and self.store.is_intact())

    def run(self, on_step: OnStep | None = None, should_stop: ShouldStop | None = None) -> Run:
        """Yields the blocks in order, latents `[1, C, F, H, W]` float32 on the CPU, until `should_stop()` is true.

        Returns the generation, whose KV cache a film that continues this one can use. Raises what `generate` and the
        store raise.
        """
        self._pass_blocks_to_earlier()
        run = FilmRun(self, on_step, should_stop)
        self.report = run.report
        with nullcontext() if self.store.is_locked or not self.needs_model else self.store.locked():
            return (yield from run.blocks())

    def finished_blocks(self) -> Sequence[Block]:
        """Reads the blocks that `finished` counts."""
        return self.earlier.finished_blocks() if self.earlier and self.mirrors_earlier else self.store.finished_blocks()

    def adopt(self, blocks: Sequence[Block]) -> None:
        """Stores the film's first blocks, which another film has; blocks that are stored already stay unchanged.

        Raises ValueError if the blocks are not the first blocks of this film's plan.
        """
        if tuple(block.spec for block in blocks) != self.plan.blocks[: len(blocks)]:
            raise ValueError("the blocks are not the first blocks of this film: plan the film that they were made for")
        if self.storyboard is not None:
            pairs = zip(self.storyboard.plan.blocks, self.storyboard_indices, strict=True)
            self.storyboard.adopt([Block(spec, blocks[at].latents) for spec, at in pairs if at < len(blocks)])
        if self.earlier is not None:
            before = len(self.earlier.plan.blocks)
            self.earlier.adopt(blocks[:before])
            if len(blocks) < before or not self.earlier.complete:
                return
        self.store.adopt(blocks)

    @property
    def first_index(self) -> int:
        """The index of the first block after those of the earlier film."""
        return 0 if self.earlier is None else len(self.earlier.plan.blocks)

    @property
    def mirrors_earlier(self) -> bool:
        """Whether the film only stores the blocks of the earlier film and adds none."""
        return self.earlier is not None and self.first_index == len(self.plan.blocks)

    @property
    def storyboard_indices(self) -> tuple[int, ...]:
        """Indices in this film of the storyboard's blocks."""
        return tuple(block.index for block in storyboard_blocks(self.plan, self.first_index))

    def follow(self, plan: BlockPlan) -> None:
        """Changes the plan of the blocks that are not sampled yet, as a live script does."""
        self._plan = plan

    def _pass_blocks_to_earlier(self) -> None:
        """Passes blocks that only this film's store has to the earlier film, as after a restart or a retake."""
        if self.earlier is None or self.earlier.complete:
            return
        if self.store.finished > self.earlier.available:
            self.earlier.adopt(self.store.finished_blocks()[: self.first_index])
