"""What to change in a film that does not fit a card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from .budget import WEIGHT_BYTES, Budget

KV_BY_QUALITY = ("bf16", "fp8", "nvfp4")
SMALL_SIZE = (480, 832)
# The least that holds a sink, one block more and the new block.
SMALL_WINDOW = 24


@dataclass(frozen=True, slots=True)
class Advice:
    """A change, the bytes that it saves on the card, and whether it is enough."""

    change: str
    saves: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Change:
    """Other values of a budget's fields, in words."""

    words: str
    fields: dict[str, Any]


def advise(budget: Budget) -> tuple[Advice, ...]:
    """What helps: each change by itself, as mild as is enough, and, where none is, the fewest that are together.

    What is enough comes first, and of that what costs least.
    """
    levers = list(_levers(budget))
    found = [_mildest(budget, steps) for steps in levers]
    if not any(advice.fits for advice in found):
        found += _together(budget, [steps[-1] for steps in levers])
    return tuple(sorted((a for a in found if a.saves > 0), key=lambda advice: not advice.fits))


def _levers(budget: Budget) -> Iterator[list[Change]]:
    """What can be changed, from what costs least; the steps of each from mild to strong."""
    if budget.guidance:
        yield [Change("guidance 1", {"guidance": False})]
    if smaller := _after(budget.kv_format, KV_BY_QUALITY):
        yield [Change(f"{name} KV", {"kv_format": name}) for name in smaller]
    if smaller := _after(budget.weights, tuple(WEIGHT_BYTES)):
        yield [Change(f"{name} weights", {"weights": name}) for name in smaller]
    if budget.vae != "tiny":
        yield [Change("tiny VAE", {"vae": "tiny"})]
    if not budget.sequential:
        yield [Change("decoding after sampling", {"sequential": True})]
    if budget.window > SMALL_WINDOW:
        yield [Change(f"window of {SMALL_WINDOW} frames", {"window": SMALL_WINDOW})]
    if prod(budget.size) > prod(SMALL_SIZE):
        size = SMALL_SIZE if budget.size[0] <= budget.size[1] else SMALL_SIZE[::-1]
        yield [Change(f"size {size[0]}x{size[1]}", {"size": size})]
    layers = budget.model.num_layers
    if budget.streamed < layers:
        away = range(budget.streamed + 1, layers + 1)
        yield [Change(f"{n} of {layers} layers in host memory (slower)", {"streamed": n}) for n in away]


def _mildest(budget: Budget, steps: Sequence[Change]) -> Advice:
    """The first step that is enough, else the last one."""
    for change in steps:
        after = _with(budget, [change])
        if after.fits:
            return Advice(change.words, budget.total - after.total, True)
    return Advice(steps[-1].words, budget.total - _with(budget, steps[-1:]).total, False)


def _together(budget: Budget, changes: Sequence[Change]) -> list[Advice]:
    """The first changes that are enough together, without those that are not needed; empty if all are too few."""
    enough = next((n for n in range(len(changes)) if _with(budget, changes[:n]).fits), None)
    if enough is None:
        return []
    taken = list(changes[:enough])
    for change in reversed(changes[:enough]):
        fewer = [other for other in taken if other is not change]
        taken = fewer if _with(budget, fewer).fits else taken
    return [Advice(", ".join(c.words for c in taken), budget.total - _with(budget, taken).total, True)]


def _with(budget: Budget, changes: Sequence[Change]) -> Budget:
    return replace(budget, **{name: value for change in changes for name, value in change.fields.items()})


def _after(name: str, order: Sequence[str]) -> Sequence[str]:
    """Formats that are smaller than the named one; all, where it is none of them."""
    return order[order.index(name) + 1 :] if name in order else order
