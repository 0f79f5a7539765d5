"""Confidence intervals by bootstrap over films: the looks at one film are not independent, films are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

# The sum of a measure over one film and the number of its measurements, or any two sums whose ratio is the figure.
Sums = tuple[float, float]

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval from `films` films; all three numbers are NaN without films.

    count: the sum of the divisors, which is the number of looks for a share.
    """

    value: float
    low: float
    high: float
    films: int
    count: float


def estimate(films: Sequence[Sums], seed: int = SEED) -> Estimate:
    """Estimates a ratio of sums over films, given both sums of each film; films whose divisor is 0 are left out.

    The interval lies between the percentiles of the ratio in samples of as many films, drawn with replacement. It has
    no width where all films agree: of n films without a fault, up to about 3/n of all films may still have one.
    """
    sums = np.array([film for film in films if film[1]], dtype=np.float64).reshape(-1, 2)
    count = len(sums)
    if not count:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0.0)
    samples = sums[np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))].sum(axis=1)
    low, high = np.quantile(samples[:, 0] / samples[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    total, divisor = sums.sum(axis=0).tolist()
    return Estimate(total / divisor, low, high, count, divisor)
