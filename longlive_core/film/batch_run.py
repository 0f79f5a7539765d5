"""The runs of films that one generation samples together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..oom import free_memory
from ..sampling import Generation, Snapshot
from ..types import Block, BlockSpec
from .sampler_settings import OnStep, ShouldStop

if TYPE_CHECKING:
    from .film_batch import FilmBatch
    from .film_run import FilmRun


class BatchRun:
    """A run that is iterated, and the runs of the films beside it, for which it samples too.

    The films beside it are found when it samples its first block. They are left as soon as one of them needs another
    block than the others; their own runs make the rest.
    """

    def __init__(self, leader: FilmRun, batch: FilmBatch, index: int, should_stop: ShouldStop | None) -> None:
        """index: of the first block that is sampled; films that lack an earlier block are not taken."""
        self._batch, self._should_stop = batch, should_stop
        beside = (leader.beside(film) for film in batch.beside(leader.film, index))
        self._runs = [leader, *(run for run in beside if _needs_next(run, index))]

    @property
    def films(self) -> int:
        """The number of films that are sampled together."""
        return len(self._runs)

    def parts_at(self, index: int, block: Block | None) -> bool:
        """Looks a block up for the films beside the first one, which has `block`; whether not all of them need it."""
        found = [run.find(index) for run in self._runs[1:]]
        return bool(found) and any(one is not None for one in (block, *found))

    def save(self, index: int, latents: Tensor) -> Block:
        """Stores a block of every film, `[B, C, F, H, W]` float32 on the CPU; returns that of the first film."""
        # Cloned, because each row would keep the latents of all films.
        first, *_ = [run.save(index, row.clone()) for run, row in zip(self._runs, latents.split(1), strict=True)]
        return first

    def shrink(self) -> None:
        """Goes on with half of the films, after the device ran out of memory. The others are sampled in their turn."""
        self._batch.shrink(self.films)
        del self._runs[max(1, self._batch.at_once) :]
        free_memory()

    def start(self, index: int, on_step: OnStep | None) -> Generation:
        """Starts a generation of all films with the K/V that each has alone. Raises StoppedError."""
        states = self._states(index)
        # Before the batch has its KV cache, because the first state is often that of all films.
        first = next(states) if index else None
        for run in self._runs:
            run.generation.read_start()
        films = [run.film for run in self._runs]
        generation = self._batch.begin(films, self._known, _of_first_film(on_step), self._should_stop)
        if first is not None:
            generation.restore_films(chain((first,), states))
        return generation

    def save_snapshots(self, generation: Generation, index: int) -> None:
        """Offers each store the snapshot of its film before a block."""
        for row, run in enumerate(self._runs):
            snapshot = partial(generation.snapshot, row)
            run.film.store.save_snapshot(snapshot, run.film.plan.blocks[index], replayed=False)

    def _states(self, index: int) -> Iterator[Snapshot]:
        """Yields the state of each film before a block, which is computed once for equal histories."""
        state, history = None, None
        for run in self._runs:
            store = run.film.store
            if state is None or history is None or store.history != history:
                state, history = run.generation.state_before(index), store.history
            yield state

    def _known(self, spec: BlockSpec) -> Tensor | None:
        """The given latents of all films, `[B, C, F, H, W]`."""
        given = [run.known(run.film.plan.blocks[spec.index]) for run in self._runs]
        known = [latents for latents in given if latents is not None]
        if not known:
            return None
        if len(known) < len(given) or len({latents.shape for latents in known}) > 1:
            raise ValueError(f"block {spec.index}: the films of a batch begin with different numbers of given frames")
        return torch.cat(known)


def _needs_next(run: FilmRun, index: int) -> bool:
    """Begins the run of a film; returns whether it finds all blocks before this one, and not this one."""
    run.film.store.begin_run()
    return all(run.find(before) is not None for before in range(index)) and run.find(index) is None


def _of_first_film(on_step: OnStep | None) -> OnStep | None:
    """Wraps `on_step` so that it gets the latents of the first film."""
    return None if on_step is None else lambda step: on_step(replace(step, x0=step.x0[:1]))
