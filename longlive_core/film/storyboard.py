"""A storyboard: the first block of every shot, made as a film of its own before the whole film is.

A shot that goes on without a cut has none: its first block must follow the very block before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..sampling.noise import NoiseSource
from ..script import BlockPlan
from ..types import Block, BlockSpec
from .film import Begin, Drawable, Drawn, Film, OnStep, ShouldStop


def board_blocks(film: BlockPlan, after: int = 0) -> tuple[BlockSpec, ...]:
    """The blocks of a film that its storyboard has, as the film numbers them: the first one, and each that is a cut.

    after: of a film that goes on from another one; the first `after` blocks are all there.
    """
    return tuple(block for block in film.blocks if block.index < max(after, 1) or block.cut)


def storyboard(film: BlockPlan, after: int = 0) -> BlockPlan:
    """The storyboard of a film: its `board_blocks`, with their shots, prompts and cuts, as a film of their own."""
    frames = film.block_frames
    blocks = [replace(one, index=i, start=i * frames) for i, one in enumerate(board_blocks(film, after))]
    gone_on = {block.shot for block in film.blocks} - {block.shot for block in blocks}
    notes = [f"shot {shot + 1} goes on without a cut: the storyboard has no block of it" for shot in sorted(gone_on)]
    return replace(film, blocks=tuple(blocks), notes=(*film.notes, *notes))


def board_noise(film: BlockPlan, noise: NoiseSource, after: int = 0) -> NoiseSource:
    """The noise of a storyboard: each block has that of the film's block which it is."""
    blocks = board_blocks(film, after)
    return lambda spec, shape: noise(blocks[spec.index], shape)


class StoryboardFilm(Film):
    """A film whose shots begin with the blocks of its storyboard, to the bit; the storyboard is made first.

    board: of `storyboard(plan, blocks of earlier)`. Its blocks are handed on when the film comes to them.
    """

    def __init__(
        self,
        plan: BlockPlan,
        begin: Begin,
        board: Drawable,
        start: Tensor | None = None,
        earlier: Drawable | None = None,
    ) -> None:
        super().__init__(plan, begin, start, earlier)
        self._board = board
        after = 0 if earlier is None else len(earlier.plan.blocks)
        self._places = tuple(block.index for block in board_blocks(plan, after))
        self._openings: dict[int, Tensor] = {}

    def resume(self, blocks: Sequence[Block]) -> None:
        super().resume(blocks)
        places = zip(self._board.plan.blocks, self._places, strict=True)
        self._board.resume([Block(spec, blocks[place].latents) for spec, place in places if place < len(blocks)])

    def _drawn(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Drawn:
        if self.needs_model:
            for block in self._board.draw(self._told(on_step), should_stop):
                self._openings[self._places[block.index]] = block.latents
            if not self._board.complete:
                yield from self._take_over(on_step, lambda: True)
                return None
        return (yield from super()._drawn(on_step, should_stop))

    def _told(self, on_step: OnStep | None) -> OnStep | None:
        """Steps of the storyboard, told with the blocks of the film that they make."""
        if on_step is None:
            return None
        return lambda step: on_step(
            replace(step, block=self.plan.blocks[self._places[step.block.index]], storyboard=True)
        )

    def _known(self, block: BlockSpec) -> Tensor | None:
        return self._openings.get(block.index) if block.index >= self.finished else super()._known(block)
