"""The parts of `device.py` in their order, with their limits of time and the packages that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec


@dataclass(frozen=True)
class Part:
    """A part: the module of this name has `tasks(toy) -> list[Task]`.

    expected: seconds on an H200, an estimate until a card has run it. limit: seconds that it may take. row_limit:
    seconds that one task may take. needs: packages beside torch and numpy.
    """

    name: str
    title: str
    expected: float
    limit: float
    row_limit: float
    needs: tuple[str, ...] = ()

    def slower(self, times: float) -> Part:
        """The same part with longer limits."""
        return replace(self, limit=times * self.limit, row_limit=times * self.row_limit)


MODEL = ("einops", "triton")
"""What the transformer and the VAE need."""

PARTS = (
    Part("ops", "Every op at the shapes of the 5B model", 75, 110, 30, ("triton",)),
    Part("ceilings", "Copies, products and attention by themselves", 20, 40, 15, MODEL),
    Part("ladder", "A pass of the transformer, arm by arm", 130, 170, 40, MODEL),
    Part("films", "Whole films, decoders and first frames", 90, 130, 40, MODEL),
    Part("graphs", "Two steps in FP8 with and without CUDA graphs", 25, 40, 20, MODEL),
    Part("memory", "Peaks of memory against the plan", 30, 50, 25, MODEL),
    Part("training", "Training steps of LongLive Mini", 20, 40, 20, (*MODEL, "safetensors")),
    Part("compiled", "The same pass and ops through torch.compile", 120, 150, 120, MODEL),
)
LEAST = 10.0
"""Seconds with which a part is still begun."""


def chosen(names: Sequence[str]) -> list[Part]:
    """The parts of these names in their own order; all if none is named. Raises ValueError for an unknown name."""
    unknown = sorted(set(names) - {part.name for part in PARTS})
    if unknown:
        raise ValueError(f"no part is called {', '.join(unknown)}; choose of {', '.join(part.name for part in PARTS)}")
    return [part for part in PARTS if not names or part.name in names]


def missing(needs: Iterable[str]) -> list[str]:
    """The packages that are not installed."""
    return [name for name in needs if find_spec(name) is None]
