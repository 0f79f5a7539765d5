"""Writes a script for a block plan that was not made from one, or the planned lengths into a script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from .block_plan import CUT_PREFIX, BlockPlan
from .cast import CastEntry
from .duration import Length
from .recall import Kept
from .shots import Shot, ShotScript
from .source import ScriptError

SPECIAL_CHARACTERS = re.compile(r"[\\|{}\[\]()@]")


def script_of(plan: BlockPlan, cast: tuple[CastEntry, ...] = ()) -> ShotScript:
    """Returns a script whose plan has the same blocks, at the frame rate and block length of `plan`.

    cast: the cast files that its blocks recall. Raises ValueError if no script has these blocks: other cast files,
    several prompts or seeds in a shot, repeated white space, a control character, or more than 1,000 shots.
    """
    if any(index < -len(cast) for block in plan.blocks for index in block.recalled):
        raise ValueError("the film recalls cast files that its blocks do not name; pass these cast files too")
    script = ShotScript(tuple(_shots(plan, cast)), cast=cast)
    try:
        read = ShotScript.parse(script.format())
        if read == script and read.plan(plan.fps, plan.block_frames).blocks == plan.blocks:
            return script
    except ScriptError as error:
        raise ValueError(f"the film cannot be written as a script: {error}") from error
    raise ValueError("the film cannot be written as a script: a shot has one prompt, one seed and single spaces")


def with_lengths(script: ShotScript, plan: BlockPlan) -> ShotScript:
    """Returns the script with a length in blocks, as planned, for every shot that has no length or a clock time.

    The lengths of these shots would otherwise depend on the shots that follow, and on the default length.
    """
    blocks = Counter(block.shot for block in plan.blocks)
    shots = tuple(
        replace(shot, duration=Length(Decimal(blocks[number]), "blocks"), start=None)
        if shot.duration is None or shot.start is not None
        else shot
        for number, shot in enumerate(script.shots)
    )
    return replace(script, shots=shots)


def escaped(prompt: str) -> str:
    """Returns a prompt as the text of a shot: signs of the grammar become plain signs."""
    return SPECIAL_CHARACTERS.sub(r"\\\g<0>", prompt)


def _shots(plan: BlockPlan, cast: tuple[CastEntry, ...]) -> Iterator[Shot]:
    kept = _kept(plan)
    for blocks in plan.blocks_of_shots:
        shot = blocks[0].shot
        first, last = blocks[0], blocks[-1]
        # Only the first block of a shot has the cut prefix: the last block has the prompt as written.
        prompt = last.prompt if last is not first or not first.cut else first.prompt.removeprefix(CUT_PREFIX)
        yield Shot(
            escaped(prompt),
            prompt,
            Length(Decimal(len(blocks)), "blocks"),
            seed=first.seed,
            continues=shot > 0 and not first.cut,
            keeps=tuple(kept[block.index] for block in blocks if block.index in kept),
            recalls=tuple(kept[i].name if i >= 0 else cast[-1 - i].name for i in first.recalled),
        )


def _kept(plan: BlockPlan) -> dict[int, Kept]:
    """The kept blocks by their index in the film, named after their place in it."""
    recalled = {index for block in plan.blocks for index in block.recalled}
    kept: dict[int, Kept] = {}
    for blocks in plan.blocks_of_shots:
        for number, block in enumerate(blocks, 1):
            if block.index in recalled:
                name = f"shot{block.shot + 1}" + (f"-block{number}" if number > 1 else "")
                kept[block.index] = Kept(name, number)
    return kept
