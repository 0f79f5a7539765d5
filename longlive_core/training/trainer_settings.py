"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from .toml_settings import Setting, check_ranges

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of the loop.

    steps: number of steps of the whole run. seed: with the step it decides all random numbers. accumulation: parts of a
    batch whose gradients are averaged before an update. precision: of the forward pass; weights and optimiser are
    always float32. save_every: steps between checkpoints. keep: number of newest checkpoints to keep. validate_every:
    steps between validation losses; 0 is never. shard: each process of a run keeps its share of weights, moments and
    average only, and writes it to checkpoints itself. Raises ValueError for a value out of range.
    """

    steps: Annotated[int, Setting(at_least=1, example=600)]
    seed: Annotated[int, Setting(at_least=0)] = 0
    accumulation: Annotated[int, Setting(at_least=1)] = 1
    precision: Precision = "float32"
    save_every: Annotated[int, Setting(at_least=1)] = 100
    keep: Annotated[int, Setting(at_least=1)] = 2
    validate_every: Annotated[int, Setting(at_least=0)] = 0
    shard: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)
