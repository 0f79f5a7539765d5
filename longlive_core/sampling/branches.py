"""The model calls of a step, one for each branch of guidance: one after the other, or at once on ranks of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..memory.film_cache import CallKV
from ..model import FlowModel


@runtime_checkable
class BothBranches(Protocol):
    """A model that runs both branches of guidance at once."""

    def flows(self, x: Tensor, t: Tensor, calls: Sequence[CallKV], positions: Tensor) -> list[Tensor]:
        """See `flows_of`."""
        ...

    def write_all_kv(self, x: Tensor, t: Tensor, calls: Sequence[CallKV], positions: Tensor) -> None:
        """See `write_all_kv`."""
        ...


def flows_of(model: FlowModel, x: Tensor, t: Tensor, calls: Iterable[CallKV], positions: Tensor) -> list[Tensor]:
    """The flow of each branch, `[B, C, F, H, W]` float32; see `CausalWan.forward`. calls: one for each branch."""
    if isinstance(model, BothBranches):
        flows = model.flows(x, t, list(calls), positions)
    else:
        flows = [model(x, t, text, kv, positions) for text, kv in calls]
    return [flow.float() for flow in flows]


def write_all_kv(model: FlowModel, x: Tensor, t: Tensor, calls: Iterable[CallKV], positions: Tensor) -> None:
    """Writes the K/V of each branch; see `CausalWan.write_kv`. calls: one for each branch."""
    if isinstance(model, BothBranches):
        model.write_all_kv(x, t, list(calls), positions)
    else:
        for text, kv in calls:
            model.write_kv(x, t, text, kv, positions)
