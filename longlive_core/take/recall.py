"""Which shots of a take depend on an earlier one because they recall a block of it."""

from __future__ import annotations

from ..script import BlockPlan


def recalling(plan: BlockPlan, shot: int) -> frozenset[int]:
    """Returns the shots (from 0) that recall a block of a shot, or of a shot that does, and so on."""
    depend = {shot}
    for block in plan.blocks:
        if any(plan.blocks[index].shot in depend for index in block.recalled if index >= 0):
            depend.add(block.shot)
    return frozenset(depend - {shot})
