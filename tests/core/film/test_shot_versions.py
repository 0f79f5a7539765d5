"""Several versions of a shot from one KV cache: each is the film that a straight render with its seed makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.shot_versions import MAX_VERSIONS, ShotVersions
from longlive.longlive_core.sampling.generation import Generation
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.take import Take, choose, follow, lock_shot
from longlive.longlive_core.take.take import GIVEN_VIDEO
from safetensors.torch import load_file

from ..conftest import Tiny
from ..takes import take_film
from .test_take_film import BLOCKS, SCRIPT, SETTINGS, SamplingRecorder, contents, joined, made

NUMBER, FIRST, END = 2, 2, 3


@pytest.fixture
def recorder(tiny: Tiny) -> SamplingRecorder:
    return SamplingRecorder(tiny)


@pytest.fixture
def take(tmp_path: Path) -> Take:
    new = Take.new(tmp_path / "film.take", ShotScript.parse(SCRIPT), SETTINGS, {})
    new.save()
    return new


def make(take: Take, recorder: SamplingRecorder, count: int, number: int = NUMBER, **options: Any) -> Take:  # noqa: ANN401
    """The take on disk after so many versions of the shot were made."""
    for _, film in ShotVersions(Take.load(take.folder), number, count, **options).films(recorder):
        list(film.run())
    return Take.load(take.folder)


def straight(take: Take, recorder: SamplingRecorder) -> torch.Tensor:
    """The film of the take's script, made without a take."""
    return joined(list(Film(take.plan, recorder).run()))


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_chosen_version_is_that_of_a_straight_render(
    recorder: SamplingRecorder, take: Take, number: int, snapshots: bool
) -> None:
    """Each of three versions, chosen and its film made whole, equals a film with that seed bit for bit."""
    made(take, recorder)
    versions = ShotVersions(take, number, 3)
    for _, film in versions.films(recorder, snapshots=snapshots):
        list(film.run())
    several = Take.load(take.folder)
    assert versions.numbers == (1, 2, 3) and several.shots[number - 1].chosen == 0
    assert [version.seed for version in several.shots[number - 1].versions] == [None, 1, 2, 3]
    for version in versions.numbers:
        chosen, _ = choose(several, number, version)
        blocks, sampled = recorder.run(take_film(chosen, recorder))
        first = chosen.plan.blocks_of_shots[number - 1][-1].index + 1
        assert sampled == list(range(first, BLOCKS))
        assert torch.equal(joined(blocks), straight(chosen, recorder))


def test_the_cache_before_the_shot_is_computed_once(
    recorder: SamplingRecorder, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first version replays the blocks before the shot; the others restore its copy, and sample the shot alone."""
    made(take, recorder)
    restored = list[int]()
    restore = Generation.restore

    def note(generation: Generation, snapshot: Any) -> None:  # noqa: ANN401
        restored.append(snapshot.next_block)
        restore(generation, snapshot)

    monkeypatch.setattr(Generation, "restore", note)
    replayed, recorder.sampled = list[int](), []
    for _, film in ShotVersions(take, NUMBER, 3).films(recorder):
        list(film.run())
        replayed.append(film.report.replayed)
    assert (replayed, restored, recorder.sampled) == ([FIRST, 0, 0], [FIRST] * 2, [FIRST] * 3)
    assert list(take.snapshot_paths()) == []


def test_nothing_that_was_made_changes(recorder: SamplingRecorder, take: Take) -> None:
    """The film as chosen keeps its blocks and its versions, whatever is made beside them."""
    made(take, recorder)
    before = contents(take)
    after = make(take, recorder, 2)
    assert before.items() <= contents(after).items()
    assert replace(after, shots=take.shots) == take


def test_what_was_made_before_a_stop_stays_and_goes_on(recorder: SamplingRecorder, take: Take) -> None:
    """A stop keeps whole versions and the one that has begun, which is the next to be made; no empty one is left."""
    made(take, recorder)
    films = ShotVersions(take, 3, 3).films(recorder)
    _, film = next(films)
    list(film.run())
    version, film = next(films)
    blocks = film.run()
    for _ in range(4):  # the blocks before the shot, and one of its two
        next(blocks)
    blocks.close()
    assert list(films) == []
    stopped = Take.load(take.folder)
    assert [stopped.block_count(2, v) for v in range(len(stopped.shots[2].versions))] == [2, 2, 1]
    whole = ShotVersions(stopped, 3, 2)
    assert whole.numbers == (version, 3)
    recorder.sampled = []
    for _, film in whole.films(recorder):
        list(film.run())
    assert recorder.sampled == [4, 3, 4]
    chosen, _ = choose(Take.load(take.folder), 3, version)
    assert torch.equal(joined(recorder.run(take_film(chosen, recorder))[0]), straight(chosen, recorder))


def test_blocks_before_the_shot_are_made_too(recorder: SamplingRecorder, take: Take) -> None:
    """In a take without blocks the chosen version is one of those that are made."""
    versions = ShotVersions(take, NUMBER, 2)
    assert versions.numbers == (0, 1)
    for _, film in versions.films(recorder):
        list(film.run())
    several = Take.load(take.folder)
    assert recorder.sampled == [0, 1, 2, 2] and several.block_count() == END
    blocks, _ = recorder.run(take_film(choose(several, NUMBER, 1)[0], recorder))
    assert torch.equal(joined(blocks), straight(choose(several, NUMBER, 1)[0], recorder))


def test_a_script_with_a_versions_seed_takes_its_blocks(recorder: SamplingRecorder, take: Take) -> None:
    """As on the canvas, where a choice is an edit of the script."""
    made(take, recorder)
    several = make(take, recorder, 2)
    edited = ShotScript.parse(SCRIPT.replace("B\n", "B @seed=2\n"))
    followed = follow(several, edited)
    assert followed.shots[1].chosen == 2
    blocks, sampled = recorder.run(take_film(followed, recorder))
    assert sampled == [3, 4] and torch.equal(joined(blocks), straight(followed, recorder))


def test_versions_with_another_text(recorder: SamplingRecorder, take: Take) -> None:
    """A prompt is that of every version, and each has a seed of its own; a prompt with a seed is refused."""
    made(take, recorder)
    shot = make(take, recorder, 2, prompt="A and B").shots[1]
    assert [(version.text, version.seed) for version in shot.versions[1:]] == [("A and B", 1), ("A and B", 2)]
    with pytest.raises(ValueError, match="the prompt sets seed 7"):
        ShotVersions(take, NUMBER, 2, prompt="A @seed=7")


def test_what_cannot_be_made_is_refused_at_once(recorder: SamplingRecorder, take: Take) -> None:
    """A locked shot, a given video, a shot that the film does not have, and too many or no versions."""
    made(take, recorder)
    for count in (0, MAX_VERSIONS + 1):
        with pytest.raises(ValueError, match=f"{count} versions of a shot: make 1 to {MAX_VERSIONS}"):
            ShotVersions(take, NUMBER, count)
    with pytest.raises(ValueError, match="shot 4: this film has 3 shots"):
        ShotVersions(take, 4, 2)
    with pytest.raises(ValueError, match="shot 2 is locked"):
        ShotVersions(lock_shot(take, NUMBER, True), NUMBER, 2)
    given = replace(take.shots[0], versions=(replace(take.shots[0].versions[0], made=GIVEN_VIDEO),))
    with pytest.raises(ValueError, match="shot 1 is a given video"):
        ShotVersions(take.with_shot(0, given), 1, 2)


def test_a_killed_process_leaves_a_take_that_can_be_read(recorder: SamplingRecorder, take: Take) -> None:
    """A first block that lies there without its version in the take is made again with another one's place."""
    made(take, recorder)
    make(take, recorder, 1)
    orphan = Take.load(take.folder)
    take.save()  # as before the version was recorded
    block = take.plan.blocks[FIRST]
    assert orphan.path(block, 1).is_file()
    versions = make(take, recorder, 2, prompt="C")
    assert len(versions.shots[1].versions) == 3
    chosen, _ = choose(versions, NUMBER, 1)
    expected = joined(list(Film(chosen.plan, recorder).run()))
    assert torch.equal(load_file(chosen.path(block))["latents"], expected[:, :, 2 * FIRST : 2 * END])
