"""A film that is made when it is drawn, and remembered: drawing it again costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..sampling.generation import Generation, KnownLatents, Step
from ..script import BlockPlan
from ..types import Block, BlockSpec
from .live_script import LiveScript

OnStep = Callable[[Step], None]
ShouldStop = Callable[[], bool]


Drawn = Generator[Block, None, Generation | None]
"""Blocks of a draw; at its end the generation that stands behind the last one, if there was any."""


class Begin(Protocol):
    """Starts a generation of a plan that asks for what is known of each block."""

    def __call__(
        self, plan: BlockPlan, known: KnownLatents, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation: ...


class Drawable(Protocol):
    """What is drawn as a film and gone on from as one; `Film` says what each part does."""

    @property
    def plan(self) -> BlockPlan: ...

    @property
    def finished(self) -> int: ...

    @property
    def kept(self) -> int: ...

    @property
    def complete(self) -> bool: ...

    @property
    def needs_model(self) -> bool: ...

    def draw(self, on_step: OnStep | None = None, should_stop: ShouldStop | None = None) -> Iterator[Block]: ...

    def drawn(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Drawn: ...

    def made(self) -> Sequence[Block]: ...

    def resume(self, blocks: Sequence[Block]) -> None: ...


class Film:
    """A lazy, memoised sequence of blocks.

        film = Film(plan, begin)
        for block in film.draw():      # made as they are asked for
            ...
        for block in film.draw():      # replayed
            ...

    The blocks stay in host memory (5 MB each at 704x1280); keys and values live only while a draw is making blocks.
    A draw that was stopped, cancelled or failed leaves its finished blocks, and the next one goes on behind them: their
    clean passes are run again, which leaves the very memory they left before, so the film is the same to the bit.

    start: known latents at the film's beginning, `[1, C, F, H, W]` normalised, as of a start image.
    earlier: a film that this one goes on from; its blocks are this one's first.
    live: its script, which may change meanwhile; `plan` follows it at the beginning of every shot.
    """

    def __init__(
        self,
        plan: BlockPlan,
        begin: Begin,
        start: Tensor | None = None,
        earlier: Drawable | None = None,
        live: LiveScript | None = None,
    ) -> None:
        self.plan = plan
        self.live = live
        self._begin = begin
        self._start = start
        self._earlier = earlier
        self._blocks: list[Block] = []

    @classmethod
    def known(cls, plan: BlockPlan, latents: Tensor) -> Film:
        """A film that is made already, of `latents` `[1, C, F, H, W]` normalised: no model is asked for any block.

        Raises ValueError where they are not the plan's frames.
        """
        if latents.shape[2] != plan.latent_frames:
            raise ValueError(f"{latents.shape[2]} latent frames are no film of {plan.latent_frames}: plan their length")
        film = cls(plan, _nothing_left)
        pieces = latents.to("cpu", torch.float32).split(plan.block_frames, dim=2)
        film._blocks = [Block(spec, piece.clone()) for spec, piece in zip(plan.blocks, pieces, strict=True)]
        return film

    @property
    def finished(self) -> int:
        """How many blocks are made."""
        return len(self._blocks)

    @property
    def kept(self) -> int:
        """How many blocks the next draw replays: those made here, else those of the earlier film."""
        return self.finished or (0 if self._earlier is None else self._earlier.kept)

    @property
    def complete(self) -> bool:
        return self.finished == len(self.plan.blocks)

    @property
    def needs_model(self) -> bool:
        """Whether the next draw makes something: false where it replays only."""
        return not self.complete

    def draw(self, on_step: OnStep | None = None, should_stop: ShouldStop | None = None) -> Iterator[Block]:
        """The film's blocks, latents on the CPU; ends early where `should_stop` says so. Raises what `generate` raises.

        Only one draw may be under way at a time.
        """
        yield from self._drawn(on_step, should_stop)

    def drawn(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Drawn:
        """As `draw`, for a film that goes on from this one: it can take over the generation that stands at the end."""
        return self._drawn(on_step, should_stop)

    def made(self) -> Sequence[Block]:
        """The finished blocks."""
        return tuple(self._blocks)

    def resume(self, blocks: Sequence[Block]) -> None:
        """Takes first blocks of the film that were kept elsewhere as made; those made here already stay.

        Raises ValueError for blocks of another film.
        """
        if tuple(block.spec for block in blocks) != self.plan.blocks[: len(blocks)]:
            raise ValueError("these blocks are no beginning of this film: plan the film that they were made for")
        if self._earlier is not None:
            before = len(self._earlier.plan.blocks)
            self._earlier.resume(blocks[:before])
            if len(blocks) < before or not self._earlier.complete:
                return
        if len(blocks) > self.finished:
            self._blocks = [Block(block.spec, block.latents.to("cpu", torch.float32)) for block in blocks]

    def _drawn(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Drawn:
        before = yield from self._take_over(on_step, should_stop)
        if self.complete or (self._earlier is not None and not self._earlier.complete):
            return before
        generation = self._begin(self.plan, self._known, on_step, should_stop)
        if before is not None:
            generation.continue_from(before)
            before = None  # its memory, where it is not ours now, is not held beside ours
        while not self.complete:
            generation = self._followed(generation, on_step, should_stop)
            block = next(generation, None)
            if block is None:
                break
            if block.index >= self.finished:
                kept = Block(block.spec, block.latents.to("cpu", torch.float32))
                self._blocks.append(kept)
                yield kept
        return generation

    def _take_over(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Drawn:
        """The blocks that need not be made here: our own finished ones, else those of the earlier film."""
        if self._blocks or self._earlier is None:
            yield from tuple(self._blocks)
            return None
        before = yield from self._earlier.drawn(on_step, should_stop)
        if self._earlier.complete:
            self._blocks = list(self._earlier.made())
            self.plan = self.plan.behind(self._earlier.plan.blocks)
        return before

    def _followed(self, generation: Generation, on_step: OnStep | None, should_stop: ShouldStop | None) -> Generation:
        """At the beginning of a shot: a generation that goes on by the script as it is now."""
        at = generation.position
        if self.live is None or at != self.finished or not self.plan.begins_shot(self.plan.blocks[at]):
            return generation
        plan = self.live.begin(self.plan.blocks[at].shot).behind(self.plan.blocks[:at])
        if plan.blocks == self.plan.blocks:
            return generation
        self.plan = plan
        changed = self._begin(plan, self._known, on_step, should_stop)
        changed.continue_from(generation)
        return changed

    def _known(self, block: BlockSpec) -> Tensor | None:
        """Latents of a finished block, or what the start holds of one that is not."""
        if block.index < self.finished:
            return self._blocks[block.index].latents
        return None if self._start is None else self._start[:, :, block.start : block.start + block.frames]


def _nothing_left(
    plan: BlockPlan,  # noqa: ARG001
    known: KnownLatents,  # noqa: ARG001
    on_step: OnStep | None,  # noqa: ARG001
    should_stop: ShouldStop | None,  # noqa: ARG001
) -> Generation:
    raise RuntimeError("a film that is made already has nothing to begin")
