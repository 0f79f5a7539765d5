"""How fast a film is sampled, for estimates of the time left."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from ..sampling import Step


class Pace:
    """Measures from one denoising step to the next, so that what is not sampled counts neither as work nor as time:
    loading, stored blocks, and clean passes that only rebuild the KV cache.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        """clock: returns seconds."""
        self._clock = clock
        self._blocks, self._seconds = 0.0, 0.0
        self._last: tuple[int, float] | None = None

    def step(self, step: Step) -> None:
        """Counts a step of the film, unless blocks that were not sampled lie between it and the step before."""
        now = self._clock()
        if self._last is not None and 0 <= step.block.index - self._last[0] <= 1:
            self._blocks += 1 / step.steps
            self._seconds += now - self._last[1]
        self._last = (step.block.index, now)

    @property
    def blocks_per_second(self) -> float:
        """Sampled blocks per second; 0 before the second step."""
        return self._blocks / self._seconds if self._seconds > 0 else 0.0
