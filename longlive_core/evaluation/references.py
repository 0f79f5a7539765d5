"""Which blocks of a film a shot is compared with, by its script: those that it recalls or returns to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..script import BlockPlan, ShotScript
from ..script.shot_text import REFERENCE


@dataclass(frozen=True, slots=True)
class References:
    """Indices of the blocks whose subject or place a shot should show again; -1 is the film's first cast file."""

    identity: tuple[int, ...]
    place: tuple[int, ...]


def references_of(
    script: ShotScript, plan: BlockPlan, places: Collection[str] = (), subjects: Collection[str] = ()
) -> tuple[References, ...]:
    """The references of every shot.

    places, subjects: names that stand for a place or for a subject only. A recalled block without such a name stands
    for both. A shot with such a name in curly brackets returns to the first shot that has it. Raises ValueError for a
    name that the script does not have.
    """
    kept = _kept_names(script, plan)
    places, subjects = ({name.casefold() for name in names} for names in (places, subjects))
    known = {name for names in kept.values() for name in names} | {
        name for shot in script.shots for name in _named(shot.text)
    }
    for name in sorted(places | subjects):
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ValueError(f"no shot keeps '{name}' or has it in curly brackets; the names of this script: {names}")
        if name in places and name in subjects:
            raise ValueError(f"'{name}' is given as a place and as a subject; leave it out where a block shows both")
    first: dict[str, int] = {}
    result: list[References] = []
    for shot, blocks in zip(script.shots, plan.blocks_of_shots, strict=True):
        begin = blocks[0]
        named = tuple(_named(shot.text))
        identity = [index for index in begin.recalled if not kept[index] or kept[index] - places]
        place = [index for index in begin.recalled if not kept[index] or kept[index] - subjects]
        identity += [first[name] for name in named if name in first and name in subjects]
        place += [first[name] for name in named if name in first and name in places]
        if not place and begin.index and not begin.cut:
            place = [begin.index - 1]
        result.append(References(tuple(dict.fromkeys(identity)) or (0,), tuple(dict.fromkeys(place))))
        for name in named:
            first.setdefault(name, begin.index)
    return tuple(result)


def _kept_names(script: ShotScript, plan: BlockPlan) -> dict[int, frozenset[str]]:
    """The names under which each block is kept, or that a cast file has for its block."""
    names: dict[int, frozenset[str]] = {block.index: frozenset() for block in plan.blocks}
    names |= {-number: frozenset({file.name.casefold()}) for number, file in enumerate(script.cast, 1)}
    for shot, blocks in zip(script.shots, plan.blocks_of_shots, strict=True):
        for kept in shot.keeps:
            index = blocks[kept.block - 1].index
            names[index] |= {kept.name.casefold()}
    return names


def _named(text: str) -> Iterator[str]:
    """The names in curly brackets."""
    return (found[1].strip().casefold() for found in REFERENCE.finditer(text) if found[1])
