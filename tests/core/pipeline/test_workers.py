"""Threads that live on after a film, so that nothing that belongs to a thread is made again."""

from __future__ import annotations

from collections.abc import Iterator
from threading import current_thread
from threading import enumerate as threads
from weakref import ref

import pytest
from longlive.longlive_core.pipeline.stages import Pipeline, StageError
from longlive.longlive_core.pipeline.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    shared = Workers()
    yield shared
    shared.close()
    assert [thread.name for thread in threads() if thread.name.startswith("longlive-")] == []


def film(workers: Workers | None) -> list[int]:
    """The threads that sample and decode a film of two blocks."""
    with Pipeline(workers) as line:
        sampled = line.stage("sampling", (current_thread().ident or 0 for _ in range(2)))
        decoded = line.stage("decoding", ((one, current_thread().ident or 0) for one in sampled))
        return sorted({ident for pair in decoded for ident in pair})


def test_the_next_film_runs_in_the_same_threads(workers: Workers) -> None:
    """Two stages take two threads, and the second film the same two."""
    assert len(film(workers)) == 2 and film(workers) == film(workers)


def test_a_stage_gets_the_thread_that_did_such_work_before(workers: Workers) -> None:
    """What a thread keeps for the decoder is of no use to the sampler."""
    names: list[str] = []
    for _ in range(2):
        with Pipeline(workers) as line:
            for name in ("decoding", "sampling"):
                names += line.stage(name, (current_thread().name for _ in range(1)))
    assert names == ["longlive-decoding", "longlive-sampling"] * 2


def test_films_at_once_take_threads_of_their_own(workers: Workers) -> None:
    """A stage never waits for another film's: an idle thread is taken, or a new one is made."""
    with Pipeline(workers) as line, Pipeline(workers) as other:
        idents = [next(one.stage("sampling", iter([current_thread]))) for one in (line, other)]
        assert len(idents) == 2


def test_a_thread_survives_an_error_and_keeps_nothing(workers: Workers) -> None:
    """After a stage that failed, its thread takes the next film's, and holds none of what passed through."""

    class Latents:
        pass

    held: list[ref[Latents]] = []

    def make() -> Iterator[Latents]:
        item = Latents()
        held.append(ref(item))
        yield item
        raise RuntimeError("went wrong")

    before = film(workers)
    with Pipeline(workers) as line, pytest.raises(StageError):
        for item in line.stage("sampling", make()):
            del item
    assert film(workers) == before and held[0]() is None
