"""The block plan of a storyboard: a short film with the first block of every shot.

A shot that continues without a cut is left out, because its first block depends on the block before it.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import BlockSpec
from .block_plan import BlockPlan


def storyboard_blocks(film: BlockPlan, after: int = 0) -> tuple[BlockSpec, ...]:
    """Returns the blocks of the storyboard, numbered as in the film: block 0 and the first block after every cut.

    after: include all of the first `after` blocks, which belong to an earlier film.
    """
    return tuple(block for block in film.blocks if block.index < max(after, 1) or block.cut)


def storyboard_plan(film: BlockPlan, after: int = 0) -> BlockPlan:
    """Returns the `storyboard_blocks` as a plan, numbered from 0, with the same shots, prompts, seeds and cuts.

    A note names each shot that is left out, and each recalled block that is no first block of a shot.
    """
    frames = film.block_frames
    chosen = storyboard_blocks(film, after)
    index = {block.index: i for i, block in enumerate(chosen)}
    recalled = [tuple(index.get(r, r) for r in block.recalled if r in index or r < 0) for block in chosen]
    blocks = [replace(block, index=i, start=i * frames, recalled=recalled[i]) for i, block in enumerate(chosen)]
    missing = {block.shot for block in film.blocks} - {block.shot for block in blocks}
    notes = [f"shot {shot + 1} continues without a cut: the storyboard has no block of it" for shot in sorted(missing)]
    notes += [
        f"shot {block.shot + 1} recalls block {missed} of the film, which the storyboard does not have"
        for block in chosen
        for missed in block.recalled
        if missed >= 0 and missed not in index
    ]
    return replace(film, blocks=tuple(blocks), notes=(*film.notes, *notes))
