"""The storyboard of a take: the first block of every shot, which the film then begins its shots with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from ..script import BlockPlan
from ..script.storyboard import storyboard_blocks, storyboard_plan
from ..types import Block, BlockSpec
from .block_file import BadBlockError, BlockRecord, load_block, save_block
from .carry_over import link
from .settings import Settings, changes_bits
from .take import Shot, Take

PREVIEW = "preview"


def with_storyboard(take: Take) -> Take:
    """Marks every shot whose first block is missing as a storyboard version; the take is not saved.

    If the storyboard had a block for the same text and seed, as before an edit of an earlier shot, the new version gets
    that block. Raises OSError.
    """
    shots = list(take.shots)
    for spec in storyboard_blocks(take.plan):
        if not _is_stored(take, spec):
            shots[spec.shot] = _with_earlier_beginning(take, spec)
    return replace(take, shots=tuple(shots))


def read_storyboard(take: Take) -> Iterator[tuple[Block, BlockRecord]]:
    """Reads the blocks of the storyboard, numbered as in its plan, with their records, up to the first bad one."""
    for stored, spec in zip(storyboard_blocks(take.plan), storyboard_plan(take.plan).blocks, strict=True):
        try:
            block, record = load_block(take.path(stored), stored, take.settings)
        except (FileNotFoundError, BadBlockError):
            return
        yield Block(spec, block.latents), record


def shared_storyboard(take: Take, plan: BlockPlan, settings: Settings) -> dict[int, BlockSpec]:
    """Returns the take's storyboard blocks that a film of this plan and these settings can begin its shots with.

    The keys are indices of blocks in the plan. A storyboard's block fits any blocks before it, so that its shot may
    have moved or have another length. The text encoder is taken to be the same.
    """
    if changes_bits(take.settings, settings):
        return {}
    found = defaultdict[tuple[object, ...], list[BlockSpec]](list)
    for spec in storyboard_blocks(take.plan):
        if take.is_preview(spec) and take.record(spec) is not None:
            found[_input(take.plan, spec)].append(spec)
    wanted = {spec.index: _input(plan, spec) for spec in storyboard_blocks(plan)}
    return {index: found[key].pop(0) for index, key in wanted.items() if found.get(key)}


def carry_storyboard(earlier: Take, take: Take) -> Take:
    """Stores the `shared_storyboard` of an earlier take in a take that is saved and locked; returns the take, saved.

    Blocks that the take has already stay unchanged. Damaged blocks are left out. Raises OSError.
    """
    shots, blocks = list(take.shots), take.plan.blocks
    for index, stored in shared_storyboard(earlier, take.plan, take.settings).items():
        spec, before = blocks[index], earlier.shots[stored.shot]
        try:
            block, record = load_block(earlier.path(stored), stored, earlier.settings)
        except (FileNotFoundError, BadBlockError):
            continue
        there = take.record(spec)
        if there is None:
            save_block(take.path(spec), Block(spec, block.latents), take.settings, record.history)
            link(earlier.still(stored.shot, before.chosen), take.still(spec.shot, shots[spec.shot].chosen))
        elif there.digest != record.digest:
            continue
        shot = _previewed(shots[spec.shot])
        shots[spec.shot] = replace(shot, accepted=shot.chosen) if before.is_accepted else shot
    if tuple(shots) == take.shots:
        return take
    carried = replace(take, shots=tuple(shots))
    carried.save()
    return carried


def accept(take: Take, number: int | None, accepted: bool) -> Take:
    """Returns the take with the beginning of shot `number` (from 1) accepted or not; None: of all that are stored.

    Raises ValueError for a shot that the film does not have, and for one whose first block is not stored.
    """
    shots = list(take.shots)
    for specs in take.plan.blocks_of_shots:
        index = specs[0].shot
        if number is not None and index != take.shot_index(number):
            continue
        if take.path(specs[0]).is_file():
            shots[index] = replace(shots[index], accepted=shots[index].chosen if accepted else None)
        elif number is not None:
            raise ValueError(f"shot {number} has no beginning to accept: make the storyboard first")
    return replace(take, shots=tuple(shots))


def _with_earlier_beginning(take: Take, spec: BlockSpec) -> Shot:
    """The shot of a missing block as one of the storyboard, with the block of an equal version of the storyboard."""
    shot, index = take.shots[spec.shot], spec.shot
    wanted, result = shot.versions[shot.chosen], _previewed(shot)
    if spec.recalled:
        return result  # an earlier version may have recalled another version of a kept block
    for version in shot.newest_first():
        made = shot.versions[version]
        if version == shot.chosen or made.made != PREVIEW or not wanted.has_input_of(made):
            continue
        if _is_stored(take, spec, version):
            take.path(spec).unlink(missing_ok=True)  # a damaged one
            link(take.path(spec, version), take.path(spec))
            link(take.still(index, version), take.still(index, shot.chosen))
            return replace(result, accepted=shot.chosen) if shot.accepted == version else result
    return result


def _is_stored(take: Take, spec: BlockSpec, version: int | None = None) -> bool:
    """Whether a block is stored and undamaged."""
    try:
        load_block(take.path(spec, version), spec, take.settings)
    except (FileNotFoundError, BadBlockError):
        return False
    return True


def _previewed(shot: Shot) -> Shot:
    """The shot with its chosen version as one of the storyboard."""
    version = replace(shot.versions[shot.chosen], made=PREVIEW)
    return replace(shot, versions=(*shot.versions[: shot.chosen], version, *shot.versions[shot.chosen + 1 :]))


def _input(plan: BlockPlan, spec: BlockSpec) -> tuple[object, ...]:
    """What the first block of a shot is sampled from, apart from its place in the film."""
    recalled = tuple((index,) if index < 0 else _input(plan, plan.blocks[index]) for index in spec.recalled)
    return spec.prompt, spec.seed, spec.cut, spec.frames, recalled
