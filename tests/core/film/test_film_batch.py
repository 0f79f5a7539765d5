"""Films that are sampled together: each is the film that it is alone, and a stop keeps what is finished of all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from longlive.longlive_core.film.block_store import BlockStore, MemoryStore
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.film_batch import FilmBatch
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.film.shot_versions import ShotVersions
from longlive.longlive_core.film.take_store import TakeStore
from longlive.longlive_core.oom import OutOfMemoryError
from longlive.longlive_core.sampling import Generation, Step, block_noise
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.take import Take
from safetensors.torch import load_file
from torch import Tensor

from ..conftest import Tiny
from ..takes import after
from .test_take_film import BLOCKS, SCRIPT, SETTINGS, joined

TOLERANCE = 1e-6


class Films:
    """Films of `SCRIPT` with seeds 0, 1, …, in takes or in memory; `calls` are the films and the block of each step."""

    def __init__(self, tiny: Tiny, folder: Path, *, snapshots: bool = False) -> None:
        self._tiny, self._folder, self._snapshots = tiny, folder, snapshots
        self.calls = list[tuple[int, int]]()
        self.fails: Callable[[int], bool] = lambda _: False
        self.notes = list[str]()

    def settings(self, seed: int) -> SamplerSettings:
        return SamplerSettings(self._tiny.size, self._tiny.memory(), seed, steps=2)

    def start(self, settings: SamplerSettings, *args: Any, **options: Any) -> Generation:  # noqa: ANN401
        """Starts a generation; steps of as many films as `fails` says run out of memory."""
        films, (plan, known, on_step, should_stop) = options.get("batch", 1), args

        def note(step: Step) -> None:
            if self.fails(films):
                raise MemoryError
            self.calls.append((films, step.block.index))
            if on_step is not None:
                assert len(step.x0) == films
                on_step(step)

        return settings.start(self._tiny.model, self._tiny.text, plan, known, note, should_stop, **options)

    def store(self, seed: int) -> BlockStore:
        new = Take.new(self._folder / f"{seed}.take", ShotScript.parse(SCRIPT), {**SETTINGS, "seed": seed}, {})
        take = Take.load(new.folder) if new.folder.is_dir() else new
        take.save()
        return TakeStore(take, is_locked=True, snapshots=self._snapshots)

    def batch(self, count: int, at_once: int, store: Callable[[int], BlockStore] | None = None) -> list[Film]:
        batch = FilmBatch(partial(self.start, self.settings(0)), at_once, self.notes.append)
        plan, films = ShotScript.parse(SCRIPT).plan(24, self._tiny.block_frames), list[Film]()
        for seed in range(count):
            settings = self.settings(seed)
            films.append(Film(plan, partial(self.start, settings), (store or self.store)(seed)))
            batch.add(films[-1], settings.noise_source)
        return films

    def alone(self, seed: int) -> Tensor:
        plan = ShotScript.parse(SCRIPT).plan(24, self._tiny.block_frames)
        generation = self.settings(seed).start(self._tiny.model, self._tiny.text, plan)
        return joined(list(generation))

    def check(self, films: list[Film]) -> None:
        """Runs the films, and compares each with the one that its seed makes alone."""
        for seed, film in enumerate(films):
            latents, alone = joined(list(film.run())), self.alone(seed)
            assert latents.shape == alone.shape and float((latents - alone).norm() / alone.norm()) <= TOLERANCE


@pytest.fixture(params=[False, True], ids=["plain", "snapshots"])
def films(tiny: Tiny, tmp_path: Path, request: pytest.FixtureRequest) -> Films:
    return Films(tiny, tmp_path, snapshots=request.param)


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_films_in_turns_are_those_made_alone(films: Films, at_once: int) -> None:
    """Three films, as many at once as fit, each with its own take: the first run of a turn samples the whole turn."""
    films.check(films.batch(3, at_once))
    sizes = {1: [1, 1, 1], 2: [2, 1], 3: [3], 4: [3]}[at_once]
    assert films.calls == [(size, block) for size in sizes for block in range(BLOCKS) for _ in range(2)]


def test_films_without_takes_wait_in_memory(films: Films) -> None:
    films.check(films.batch(2, 2, lambda _: MemoryStore()))
    assert {size for size, _ in films.calls} == {2}


@pytest.mark.parametrize("calls", range(1, 16, 3))
def test_a_stop_keeps_the_finished_blocks_of_all_films(films: Films, calls: int) -> None:
    """After a stop anywhere, all films have equally many blocks; the rest is sampled together, and is the same."""
    begun = films.batch(3, 3)
    list(begun[0].run(None, after(calls)))
    assert len({film.finished for film in begun}) == 1
    finished, films.calls = begun[0].finished, []
    films.check(films.batch(3, 3))
    assert films.calls == [(3, block) for block in range(finished, BLOCKS) for _ in range(2)]


def test_films_that_are_not_equally_far_are_sampled_apart(films: Films) -> None:
    """One film was made to block 2 alone: it is not sampled with the others, and is the same."""
    (film, *_) = films.batch(1, 1)
    list(film.run(None, after(6)))
    assert film.finished == 2
    films.calls = []
    films.check(films.batch(3, 3))
    assert films.calls == [(1, b) for b in range(2, BLOCKS) for _ in range(2)] + [
        (2, b) for b in range(BLOCKS) for _ in range(2)
    ]


def test_a_film_with_a_missing_block_is_made_whole(films: Films) -> None:
    """A block that was removed from one of two complete films is sampled again by its own run, and no other is."""
    films.check(films.batch(2, 2))
    films.calls = []
    again = films.batch(2, 2)
    store = again[1].store
    assert isinstance(store, TakeStore)
    store.take.path(again[1].plan.blocks[2]).unlink()
    films.check(again)
    assert set(films.calls) == {(1, 2)}


@pytest.mark.parametrize("fits", [1, 2])
@pytest.mark.parametrize("block", [0, 3])
def test_films_that_do_not_fit_are_sampled_by_fewer(films: Films, fits: int, block: int) -> None:
    """Out of memory at a block: half as many go on, to one if need be, with a note; the others come in their turn."""
    films.fails = lambda size: size > fits and _at(films, block)
    films.check(films.batch(4, 4))
    assert max(size for size, at in films.calls if at >= block) <= fits
    assert films.notes[0] == "no memory for 4 films at once: now 2 at once"
    assert len(films.notes) == (1 if fits == 2 else 2)


def _at(films: Films, block: int) -> bool:
    """Whether the next step is of this block or a later one."""
    return len({index for _, index in films.calls}) >= block


def test_one_film_out_of_memory_is_an_error(films: Films) -> None:
    films.fails = lambda _: True
    with pytest.raises(OutOfMemoryError, match="block 0"):
        list(films.batch(2, 2)[0].run())
    assert films.notes == ["no memory for 2 films at once: now 1 at once"]


def test_films_that_depend_on_others_are_refused(films: Films) -> None:
    """A film of another text, one that continues another, and one whose take another process could change."""
    (film, *_) = films.batch(1, 1)
    batch = film.batch
    assert batch is not None
    blocks = film.plan.blocks
    other = replace(film.plan, blocks=(*blocks[:-1], replace(blocks[-1], prompt="D")))
    with pytest.raises(ValueError, match="differ in seeds only"):
        batch.add(Film(other, None), block_noise(0))
    with pytest.raises(ValueError, match="depends on another film"):
        batch.add(Film(film.plan, None, earlier=Film(film.plan, None)), block_noise(0))
    store = film.store
    assert isinstance(store, TakeStore)
    with pytest.raises(ValueError, match="lock the take"):
        batch.add(Film(film.plan, None, TakeStore(store.take)), block_noise(0))


@pytest.mark.parametrize(("number", "stop"), [(1, None), (2, None), (3, None), (1, 4), (3, 4)])
def test_versions_of_a_shot_are_sampled_together(films: Films, number: int, stop: int | None) -> None:
    """Each equals the version made alone, also after a stop; the film before the shot is replayed for one film only."""
    (film, *_) = films.batch(1, 1)
    list(film.run())
    store = film.store
    assert isinstance(store, TakeStore)
    noise = films.settings(0).noise_source

    def make(take: Take, count: int, at_once: int, should_stop: Callable[[], bool] | None = None) -> Take:
        batch = FilmBatch(partial(films.start, films.settings(0)), at_once)
        start = partial(films.start, films.settings(0))
        versions = ShotVersions(Take.load(take.folder), number, count)
        for _, one in versions.films(start, prepare=lambda film: batch.add(film, noise)):
            list(one.run(None, should_stop))
        return Take.load(take.folder)

    untouched = replace(store.take, folder=store.take.folder.with_name("copy.take"))
    shutil.copytree(store.take.folder, untouched.folder)
    films.calls = []
    if stop is not None:
        make(store.take, 3, 3, after(stop))
    together = make(store.take, 3, 3)
    assert len(together.shots[number - 1].versions) == 4
    assert {size for size, _ in films.calls} == {3}
    alone = make(untouched, 3, 1)
    for version in range(1, 4):
        for spec in together.plan.blocks_of_shots[number - 1]:
            one, other = (load_file(take.path(spec, version))["latents"] for take in (together, alone))
            assert float((one - other).norm() / other.norm()) <= TOLERANCE
