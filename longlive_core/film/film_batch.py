"""Films that are sampled together, a block of each in every model call: they differ in their seeds only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ..sampling import Generation, KnownLatents, NoiseSource, batch_noise
from ..script import BlockPlan
from ..types import BlockSpec
from ..units import plural
from .sampler_settings import OnStep, ShouldStop

if TYPE_CHECKING:
    from .film import Film


class StartBatch(Protocol):
    """Starts a generation of several films, like `StartGeneration`; `SamplerSettings.start` is one."""

    def __call__(
        self,
        plan: BlockPlan,
        known: KnownLatents,
        on_step: OnStep | None,
        should_stop: ShouldStop | None,
        /,
        *,
        batch: int,
        noise: NoiseSource,
    ) -> Generation: ...


class FilmBatch:
    """Films of which up to `at_once` are sampled together, by the run of whichever of them is run first.

        batch = FilmBatch(start, at_once=2)
        for film, noise in films:
            batch.add(film, noise)
        for film in films:
            for block in film.run():      # samples for a later film too, whose own run then finds its blocks stored
                ...

    Each film has the noise, the KV cache and the store that it has alone. On a CPU its latents equal those of a run
    alone to the bit where matrix products do not depend on the number of their rows; elsewhere they differ by rounding.
    """

    def __init__(self, start: StartBatch, at_once: int, on_note: Callable[[str], None] | None = None) -> None:
        """at_once: becomes smaller if the device runs out of memory; on_note receives a note then."""
        self.at_once = at_once
        self._start, self._on_note = start, on_note
        self._films: list[tuple[Film, NoiseSource]] = []

    def add(self, film: Film, noise: NoiseSource) -> None:
        """Adds a film and its noise.

        Raises ValueError for a film with an earlier film, a storyboard or a live script, for one whose store another
        process can change, and for one whose plan differs in more than seeds from that of the films before.
        """
        if film.earlier is not None or film.storyboard is not None or film.live is not None:
            raise ValueError("a film that depends on another film or on a live script is sampled alone")
        if not film.store.is_locked:
            raise ValueError("lock the take of a film before it is sampled with other films")
        if self._films and _without_seeds(film.plan) != _without_seeds(self._films[0][0].plan):
            raise ValueError("films that are sampled together have one script and one length, and differ in seeds only")
        self._films.append((film, noise))
        film.batch = self

    def beside(self, film: Film, index: int) -> list[Film]:
        """The films after this one that need the same block next, as many as are sampled with it."""
        films = [other for other, _ in self._films]
        later = films[films.index(film) + 1 :] if self.at_once > 1 else []
        return [other for other in later if other.finished == index][: self.at_once - 1]

    def begin(
        self, films: Sequence[Film], known: KnownLatents, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        """Starts a generation of some of the films. known: `[B, C, F, H, W]` in the order of the films."""
        noises = [(noise, film.plan.blocks) for wanted in films for film, noise in self._films if film is wanted]
        plan = films[0].plan
        return self._start(plan, known, on_step, should_stop, batch=len(films), noise=batch_noise(noises))

    def shrink(self, films: int) -> None:
        """Halves the number of films at once, after so many have run out of memory."""
        self.at_once = films // 2
        if self._on_note is not None:
            self._on_note(f"no memory for {plural(films, 'film')} at once: now {self.at_once} at once")


def _without_seeds(plan: BlockPlan) -> tuple[BlockSpec, ...]:
    return tuple(replace(block, seed=None) for block in plan.blocks)
