"""A film that keeps itself goes on where its take cannot be written, and its take is completed later."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.kept_store import KeptStore
from longlive.longlive_core.take import Take

from ..full_disk import files_no_larger_than
from .test_take_film import BLOCKS, SamplingRecorder, joined, recorder, take

__all__ = ["recorder", "take"]


def kept(take: Take, recorder: SamplingRecorder, notes: list[str] | None = None) -> Film:
    """The film of a take that nobody asked for."""
    return Film(take.plan, recorder, KeptStore(take, on_note=None if notes is None else notes.append))


@pytest.mark.linux
@pytest.mark.parametrize("count", [0, 2, BLOCKS - 1])
def test_a_full_disk_ends_the_take_and_not_the_film(recorder: SamplingRecorder, take: Take, count: int) -> None:
    """The film equals one without a take, a note says why, and the next run writes the missing blocks to disk."""
    whole, _ = recorder.run(Film(take.plan, recorder))
    notes = list[str]()
    film = kept(take, recorder, notes)
    recorder.sampled = []
    blocks = list[torch.Tensor]()
    with closing(film.run()) as run:
        for _ in range(count):
            blocks.append(next(run).latents)
        with files_no_larger_than(500):
            blocks += [block.latents for block in run]
    assert torch.equal(torch.cat(blocks, dim=2), joined(whole)) and recorder.sampled == list(range(BLOCKS))
    assert len(notes) == 1 and notes[0].startswith("the film goes on without its take: cannot write")
    assert isinstance(film.store, KeptStore) and film.store.error is not None
    assert take.block_count() == count and film.complete and not film.needs_model
    again, sampled = recorder.run(film)
    assert sampled == [] and torch.equal(joined(again), joined(whole))
    assert take.complete
    assert recorder.run(kept(take, recorder))[1] == []


def test_blocks_in_memory_get_into_the_take(recorder: SamplingRecorder, take: Take) -> None:
    """A film that was begun in memory is kept from where it is, and a stored block is not written again."""
    film = Film(take.plan, recorder)
    with closing(film.run()) as run:
        for _ in range(3):
            next(run)
    store = KeptStore(take)
    store.adopt(film.store.finished_blocks())
    film.store = store
    assert (film.finished, take.block_count()) == (3, 3)
    before = {path: path.stat().st_mtime_ns for path in take.folder.rglob("*.safetensors")}
    store.adopt(store.finished_blocks())
    assert {path: path.stat().st_mtime_ns for path in take.folder.rglob("*.safetensors")} == before
    blocks, sampled = recorder.run(film)
    assert sampled == [3, 4] and torch.equal(joined(blocks), joined(recorder.run(Film(take.plan, recorder))[0]))


def test_a_take_that_was_removed_is_made_again(recorder: SamplingRecorder, take: Take) -> None:
    """A cached film whose take was deleted becomes a whole take again, not a folder that is none."""
    film = kept(take, recorder)
    recorder.run(film)
    shutil.rmtree(take.folder)
    assert recorder.run(film)[1] == list(range(BLOCKS))
    assert Take.load(take.folder).complete and [path.name for path in Path(take.folder).glob("*.json")] == ["take.json"]
