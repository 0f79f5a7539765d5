"""How fast a film is sampled, for estimates of the time left."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from ..sampling import Step


class Pace:
    """Measures from one denoising step to the next, so that what is not sampled counts neither as work nor as time:
    loading, stored blocks, and clean passes that only rebuild the KV cache. The first step alone gives an estimate.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        """clock: returns seconds."""
        self._clock = clock
        self._blocks, self._seconds = 0.0, 0.0
        self._last: tuple[int, float] | None = None
        self._began, self._estimate = clock(), 0.0

    def begin(self) -> None:
        """Says that the next step is sampled from now on, as after loading and after each stored block."""
        self._began = self._clock()

    def step(self, step: Step, replayed: int = 0) -> None:
        """Counts a step of the film, unless blocks that were not sampled lie between it and the step before.

        replayed: the clean passes so far that only rebuilt the KV cache, each of which takes as long as a step.
        """
        now = self._clock()
        if self._last is not None and 0 <= step.block.index - self._last[0] <= 1:
            self._blocks += 1 / step.steps
            self._seconds += now - self._last[1]
        elif now > self._began:
            self._estimate = (1 + replayed) / (now - self._began) / step.steps
        self._last = (step.block.index, now)

    @property
    def blocks_per_second(self) -> float:
        """Sampled blocks per second; 0 before the first step."""
        return self._blocks / self._seconds if self._seconds > 0 else self._estimate
