"""What stands before a shot of a take, and what its versions were made after."""

from __future__ import annotations

from .block_file import History
from .take import Take


def history_before(take: Take, index: int) -> History | None:
    """The history before a shot (from 0) as chosen; None where a block before it is yet to be made."""
    history = History()
    for spec in take.plan.blocks:
        if spec.shot == index:
            break
        facts = take.facts(spec)
        if facts is None:
            return None
        history = history.then(facts.digest)
    return history


def made_after(take: Take, index: int, version: int, before: History | None) -> History | None:
    """The history that a version was made on; None where its first block is yet to be made.

    A storyboard's block stands anywhere, so `before` the shot too, unless its second block was made after others.
    """
    first, *rest = (spec for spec in take.plan.blocks if spec.shot == index)
    facts = take.facts(first, version)
    if facts is None or take.shots[index].versions[version].made != "preview":
        return None if facts is None else facts.history
    second = take.facts(rest[0], version) if rest else None
    stands = second is None or (before is not None and second.history == before.then(facts.digest))
    return before if stands else facts.history
