"""The plan of a storyboard: the first block of every shot, as a film of its own.

A shot that continues without a cut has none: its first block must follow the very block before it.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import BlockSpec
from .block_plan import BlockPlan


def storyboard_blocks(film: BlockPlan, after: int = 0) -> tuple[BlockSpec, ...]:
    """The film's blocks that its storyboard shows, numbered as in the film: block 0 and every block after a cut.

    after: the storyboard includes all of the first `after` blocks, which belong to an earlier film.
    """
    return tuple(block for block in film.blocks if block.index < max(after, 1) or block.cut)


def storyboard_plan(film: BlockPlan, after: int = 0) -> BlockPlan:
    """The `storyboard_blocks` as a plan: same shots, prompts, seeds and cuts, numbered from 0.

    A note names each shot that has no block in it.
    """
    frames = film.block_frames
    blocks = [replace(block, index=i, start=i * frames) for i, block in enumerate(storyboard_blocks(film, after))]
    missing = {block.shot for block in film.blocks} - {block.shot for block in blocks}
    notes = [f"shot {shot + 1} continues without a cut: the storyboard has no block of it" for shot in sorted(missing)]
    return replace(film, blocks=tuple(blocks), notes=(*film.notes, *notes))
