"""The generation of a run of a film, which begins where a block has to be sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..sampling import Generation, KnownLatents, Snapshot
from .sampler_settings import OnStep, ShouldStop

if TYPE_CHECKING:
    from .batch_run import BatchRun
    from .film import Film
    from .film_run import RunReport


class StoppedError(Exception):
    """The run was stopped while the KV cache was rebuilt."""


class RunGeneration:
    """Starts a generation with the K/V of the blocks before the first one that is sampled, and keeps it.

    current: the generation, None before. inherited: that of the earlier film, whose K/V are taken if they fit.
    """

    def __init__(
        self,
        film: Film,
        report: RunReport,
        known: KnownLatents,
        on_step: OnStep | None,
        should_stop: ShouldStop | None,
    ) -> None:
        """report: counts the clean passes. known: see `generate`."""
        self._film, self._report, self._known = film, report, known
        self._on_step, self._should_stop = on_step, should_stop
        self.current: Generation | None = None
        self.inherited: Generation | None = None

    def before(self, index: int, batch: BatchRun | None) -> Generation:
        """The generation before a block, whose snapshot is offered to the store. Raises StoppedError.

        batch: the films that it samples together, None for this film alone.
        """
        if self.current is None:
            self.current = self._start(index) if batch is None else batch.start(index, self._on_step)
        generation, store = self.current, self._film.store
        if batch is None:
            self._replay(generation, index)
            store.save_snapshot(generation.snapshot, self._film.plan.blocks[index], replayed=False)
        else:
            batch.save_snapshots(generation, index)
        return generation

    def state_before(self, index: int) -> Snapshot:
        """The state of the film alone before a block, of which all earlier ones were found. Raises StoppedError."""
        generation = self._start(index)
        self._replay(generation, index)
        state = generation.snapshot()
        self._film.store.save_snapshot(lambda: state, self._film.plan.blocks[index], replayed=False)
        return state

    def follow_plan(self) -> None:
        """Goes on with the film's plan, which has changed behind the position of the generation."""
        if self.current is not None:
            changed = self._new()
            changed.continue_from(self.current)
            self.current = changed

    def read_start(self) -> None:
        """Reads the start image of the film, if its store has one."""
        if self._film.start is None:
            self._film.start = self._film.store.start_image()

    def _start(self, index: int) -> Generation:
        """Starts a generation before a block, with the K/V of the earlier film or of the last stored snapshot."""
        film, inherited = self._film, self.inherited
        self.inherited = None  # its K/V must not stay alive beside those of the new generation
        self.read_start()
        generation = self._new()
        if inherited is None or not generation.continue_from(inherited):
            film.store.restore(generation, film.plan.blocks[index])
        return generation

    def _replay(self, generation: Generation, index: int) -> None:
        """Rebuilds the K/V before a block by clean passes over stored blocks. Raises StoppedError."""
        store, blocks = self._film.store, self._film.plan.blocks
        while generation.position < index:
            generation.skip_towards(index)
            if generation.position == index:
                return
            store.save_snapshot(generation.snapshot, blocks[generation.position], replayed=True)
            if next(generation, None) is None:
                raise StoppedError
            self._report.replayed += 1

    def _new(self) -> Generation:
        film = self._film
        if film.start_generation is None:
            raise RuntimeError("this film was made without start_generation and cannot sample its missing blocks")
        return film.start_generation(film.plan, self._known, self._on_step, self._should_stop)
