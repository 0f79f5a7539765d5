"""Lengths of shots in whole blocks, written as an author would."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import floor

from ..types import TIME_FACTOR
from .block_plan import Grid
from .draft import Draft, DraftShot
from .duration import Length

# Seconds by which a length may differ from a whole number of seconds and be written as that.
NEARLY_WHOLE = 0.15


def length_of(blocks: int, unit: str, grid: Grid, first: bool) -> Length:
    """Returns a length that is planned as `blocks`, in `unit` where a short number does it, else in blocks.

    first: whether the shot starts the film, whose first block is shorter.
    """
    frames = grid.unit * blocks - (TIME_FACTOR - 1 if first else 0)
    exact = Fraction(frames) / grid.fps if unit == "s" else Fraction(frames)
    short = Decimal(round(exact)) if abs(exact - round(exact)) <= NEARLY_WHOLE else Decimal(f"{float(exact):.1f}")
    asked = short if unit == "s" else Decimal(frames)
    length = Length(asked, unit)
    if unit != "blocks" and asked and floor(_blocks(length, grid, first) + Fraction(1, 2)) == blocks:
        return length
    return Length(Decimal(blocks), "blocks")


def stretched(item: DraftShot, blocks: int, grid: Grid, first: bool) -> DraftShot:
    """Returns a shot with a length in blocks, written in the unit of its author."""
    unit = item.shot.duration.unit if item.shot.duration else "s"
    shot = replace(item.shot, start=None, duration=length_of(blocks, unit, grid, first))
    return replace(item, shot=shot, blocks=blocks)


def with_lengths(draft: Draft, grid: Grid, default_seconds: float) -> Draft:
    """Writes times of the film as lengths of shots, in blocks where the length would be rounded otherwise."""
    shots = list(draft.shots)
    if all(item.shot.start is None for item in shots):
        return draft
    followers = [*(item.shot for item in shots[1:]), None]
    for index, (item, after) in enumerate(zip(shots, followers, strict=True)):
        timed = item.shot.start is not None or (after is not None and after.start is not None)
        if timed and item.shot.duration is None:
            shots[index] = stretched(item, item.blocks, grid, first=index == 0)
        else:
            shots[index] = replace(item, shot=replace(item.shot, start=None))
    script = replace(draft, shots=tuple(shots)).script
    plan = script.plan(float(grid.fps), grid.block_frames, default_seconds)
    for index, (item, blocks) in enumerate(zip(shots, plan.blocks_of_shots, strict=True)):
        if len(blocks) != item.blocks:
            length = Length(Decimal(item.blocks), "blocks")
            shots[index] = replace(item, shot=replace(item.shot, duration=length))
    note = "the times of the film became lengths of the shots"
    return replace(draft, shots=tuple(shots), notes=(*draft.notes, note))


def _blocks(length: Length, grid: Grid, first: bool) -> Fraction:
    frames = length.frames(grid.fps, grid.unit)
    return grid.blocks(frames) if first else frames / grid.unit
