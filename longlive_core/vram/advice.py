"""Advice for a film that does not fit a card: which changes make it fit, and what each of them saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Protocol, TypeVar

from .budget import WEIGHT_BYTES, Budget

KV_BY_QUALITY = ("bf16", "fp8", "nvfp4")
"""The KV formats that are chosen and advised, from the best to the smallest."""
SMALLEST_KV = "q2"
"""The KV format that is advised after these and never chosen by itself, because its rounding is the coarsest."""
SMALL_SIZE = (480, 832)
SMALL_WINDOW = 24
"""The shortest window that holds the sink, one other block and the new block."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A change of settings, the bytes of the card that it saves, and whether the film fits with it."""

    change: str
    saves: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A change of settings: its description and the new values of fields of `Budget`."""

    text: str
    fields: dict[str, Any]


class Planned(Protocol):
    """A frozen dataclass of settings with the peak of their bytes."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def total(self) -> int: ...
    @property
    def fits(self) -> bool: ...


PlannedT = TypeVar("PlannedT", bound=Planned)


def advise(budget: Budget) -> tuple[Advice, ...]:
    """Advice for a film that does not fit; see `choose`."""
    return choose(budget, list(_options(budget)))


def choose(budget: Planned, options: Sequence[Sequence[Change]]) -> tuple[Advice, ...]:
    """Advice for what does not fit: every setting by itself, changed no more than necessary.

    options: for each setting its changes from mild to strong; settings with little loss come first. If no single change
    is enough, the smallest sufficient combination is included. Advice that is enough comes first, otherwise the order
    is from the least loss of quality to the largest.
    """
    advice = [_mildest(budget, steps) for steps in options]
    if not any(item.fits for item in advice):
        advice += _combine(budget, [steps[-1] for steps in options])
    return tuple(sorted((item for item in advice if item.saves > 0), key=lambda item: not item.fits))


def _options(budget: Budget) -> Iterator[list[Change]]:
    """For each setting that can be changed, its changes from mild to strong. Settings with little loss come first."""
    if budget.graphs:
        yield [Change("no CUDA graphs", {"graphs": False})]
    if budget.guidance:
        yield [Change("guidance 1", {"guidance": False, "split": False})]
    if budget.align:
        yield [Change("plain seams", {"align": False})]
    if budget.kv_format != SMALLEST_KV and (smaller := _after(budget.kv_format, KV_BY_QUALITY)):
        yield [Change(f"{name} KV", {"kv_format": name}) for name in smaller]
    if smaller := _after(budget.weights, tuple(WEIGHT_BYTES)):
        yield [Change(f"{name} weights", {"weights": name}) for name in smaller]
    if budget.vae != "tiny":
        yield [Change("tiny VAE", {"vae": "tiny"})]
    if not budget.sequential:
        yield [Change("decoding after sampling", {"sequential": True})]
    if budget.window > SMALL_WINDOW:
        yield [Change(f"window of {SMALL_WINDOW} frames", {"window": SMALL_WINDOW})]
    if budget.kv_format != SMALLEST_KV:
        yield [Change(f"{SMALLEST_KV} KV (coarse)", {"kv_format": SMALLEST_KV})]
    if prod(budget.size) > prod(SMALL_SIZE):
        size = SMALL_SIZE if budget.size[0] <= budget.size[1] else SMALL_SIZE[::-1]
        yield [Change(f"size {size[0]}x{size[1]}", {"size": size})]
    layers = budget.model.num_layers
    if budget.streamed < layers:
        counts = range(budget.streamed + 1, layers + 1)
        yield [Change(f"{n} of {layers} layers in host memory (slower)", {"streamed": n}) for n in counts]


def _mildest(budget: Planned, steps: Sequence[Change]) -> Advice:
    """The first of the changes with which the film fits, otherwise the last one."""
    change = next((step for step in steps if _with(budget, [step]).fits), steps[-1])
    after = _with(budget, [change])
    return Advice(change.text, budget.total - after.total, after.fits)


def _combine(budget: Planned, changes: Sequence[Change]) -> list[Advice]:
    """The first changes that are enough together, without those that are not needed; empty if all are not enough."""
    enough = next((n for n in range(len(changes)) if _with(budget, changes[:n]).fits), None)
    if enough is None:
        return []
    needed = list(changes[:enough])
    for change in reversed(changes[:enough]):
        fewer = [other for other in needed if other is not change]
        needed = fewer if _with(budget, fewer).fits else needed
    return [Advice(", ".join(c.text for c in needed), budget.total - _with(budget, needed).total, True)]


def _with(budget: PlannedT, changes: Sequence[Change]) -> PlannedT:
    return replace(budget, **{name: value for change in changes for name, value in change.fields.items()})


def _after(name: str, order: Sequence[str]) -> Sequence[str]:
    """The names after `name` in `order`; all of them if it is not one of them."""
    return order[order.index(name) + 1 :] if name in order else order
