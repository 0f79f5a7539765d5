"""Films in a take resume from disk bit for bit after any interruption; a repeated retake samples nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.sampler_settings import OnStep, ShouldStop
from longlive.longlive_core.sampling.generation import Generation, KnownLatents, Step
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.take import Shot, Take, Version, lock_shot
from longlive.longlive_core.take.live_versions import with_versions_of
from longlive.longlive_core.take.retake import Mode, retake
from longlive.longlive_core.take.take import GIVEN_VIDEO
from longlive.longlive_core.types import Block
from torch import Tensor

from ..conftest import Tiny
from ..takes import stored_blocks, stored_film, take_film

SCRIPT = "Shot 1 (2 blocks): A\nShot 2 (1 block): B\nShot 3 (2 blocks): C\n"
BLOCKS = 5
SETTINGS = {"fps": 24.0, "block_frames": 2, "seed": 0}


class SamplingRecorder:
    """Begins films and notes each block that it samples."""

    def __init__(self, tiny: Tiny) -> None:
        self.tiny = tiny
        self.sampled: list[int] = []

    def __call__(
        self, plan: BlockPlan, known: KnownLatents, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        def note(step: Step) -> None:
            if step.index == step.steps:
                self.sampled.append(step.block.index)
            if on_step is not None:
                on_step(step)

        return self.tiny.generate("", plan=plan, known=known, on_step=note, should_stop=should_stop)

    def run(self, film: Film) -> tuple[list[Block], list[int]]:
        """The whole film and which of its blocks were sampled for it."""
        self.sampled = []
        return list(film.run()), self.sampled


def retaken(take: Take, *change: Any, **options: Any) -> Take:  # noqa: ANN401
    """The take with a retake, as a graph asks for it."""
    return retake(take, *change, reuse=True, **options).take


@pytest.fixture
def recorder(tiny: Tiny) -> SamplingRecorder:
    return SamplingRecorder(tiny)


@pytest.fixture
def take(tmp_path: Path) -> Take:
    new = Take.new(tmp_path / "film.take", ShotScript.parse(SCRIPT), SETTINGS, {})
    new.save()
    return new


def joined(blocks: list[Block] | tuple[Block, ...]) -> Tensor:
    return torch.cat([block.latents for block in blocks], dim=2)


def made(take: Take, recorder: SamplingRecorder) -> Take:
    """The take with its film made."""
    recorder.run(take_film(take, recorder))
    assert take.complete
    return take


def contents(take: Take) -> dict[str, bytes]:
    """The bytes of every block's file."""
    return {str(path): path.read_bytes() for path in sorted(take.folder.rglob("*.safetensors"))}


def test_a_block_is_on_disk_before_it_is_handed_on(recorder: SamplingRecorder, take: Take) -> None:
    """Each block is stored before the run yields it."""
    for block in stored_film(Film(take.plan, recorder), take).run():
        (kept,) = [one for one in stored_blocks(take) if one.index == block.index]
        assert torch.equal(kept.latents, block.latents)
    assert take.complete


@pytest.mark.parametrize("count", range(BLOCKS + 1))
def test_a_film_cut_off_goes_on_from_disk(recorder: SamplingRecorder, take: Take, count: int) -> None:
    """Another film of the same plan, as after a crash, samples only missing blocks, bit for bit."""
    whole, _ = recorder.run(Film(take.plan, recorder))
    with closing(iter(stored_film(Film(take.plan, recorder), take).run())) as cut_off:
        for _ in range(count):
            next(cut_off)
    film = stored_film(Film(take.plan, recorder), take)
    assert (film.available, film.finished, film.needs_model) == (count, count, count < BLOCKS)
    blocks, sampled = recorder.run(film)
    assert sampled == list(range(count, BLOCKS))
    assert torch.equal(joined(blocks), joined(whole))
    assert film.complete and recorder.run(film)[1] == []


@pytest.mark.parametrize("count", range(BLOCKS + 1))
def test_a_chain_goes_on_from_disk(recorder: SamplingRecorder, take: Take, count: int) -> None:
    """Films that continue one another are resumed together, wherever the film was interrupted."""
    plan = take.plan
    beginning = replace(plan, blocks=plan.blocks[:3])

    def chain() -> Film:
        return stored_film(Film(plan, recorder, earlier=Film(beginning, recorder)), take)

    whole, _ = recorder.run(Film(plan, recorder))
    with closing(iter(chain().run())) as cut_off:
        for _ in range(count):
            next(cut_off)
    film = chain()
    assert (film.available, film.needs_model) == (count, count < BLOCKS)
    blocks, sampled = recorder.run(film)
    assert sampled == list(range(count, BLOCKS))
    assert torch.equal(joined(blocks), joined(whole))


def test_a_damaged_block_is_made_again(recorder: SamplingRecorder, take: Take) -> None:
    """The film is resumed before a damaged block, and the take is complete again."""
    whole = joined(stored_blocks(made(take, recorder)))
    path = take.path(take.plan.blocks[2])
    path.write_bytes(path.read_bytes()[:-8] + b"\0\0\0\0\1\1\1\1")
    assert take_film(take, recorder).needs_model
    film = stored_film(Film(take.plan, recorder), take)
    assert film.available == 2
    blocks, _ = recorder.run(film)
    assert torch.equal(joined(blocks), whole) and torch.equal(joined(stored_blocks(take)), whole)


def test_a_take_of_another_film_is_refused(recorder: SamplingRecorder, take: Take) -> None:
    """Blocks of another script never get into a film."""
    made(take, recorder)
    other = ShotScript.parse(SCRIPT.replace("B", "D")).plan(24.0, 2)
    with pytest.raises(ValueError, match="are not the first blocks of this film"):
        stored_film(Film(other, recorder), take)


def test_a_film_goes_on_from_a_take(recorder: SamplingRecorder, take: Take) -> None:
    """Behind a take's film, whole or not, another one is made as if both were one."""
    more = ShotScript.parse("D").plan(24.0, 2, default_seconds=0.3)
    plan = take.plan.then(more)
    whole, _ = recorder.run(Film(plan, recorder))
    film = Film(plan, recorder, earlier=take_film(take, recorder))
    assert film.available == 0
    blocks, sampled = recorder.run(film)
    assert sampled == list(range(len(plan.blocks))) and torch.equal(joined(blocks), joined(whole))
    again, sampled = recorder.run(Film(plan, recorder, earlier=take_film(take, recorder)))
    assert sampled == list(range(BLOCKS, len(plan.blocks))) and torch.equal(joined(again), joined(whole))


@pytest.mark.parametrize(("mode", "expected"), [("ripple", [2, 3, 4]), ("keep", [2])])
def test_a_retake_is_made_once(recorder: SamplingRecorder, take: Take, mode: str, expected: list[int]) -> None:
    """A repeated retake, of the original take or of the new one, chooses the existing version."""
    before = contents(made(take, recorder))
    changed = retaken(take, 2, 9, mode=mode)
    changed.save()
    blocks, sampled = recorder.run(take_film(changed, recorder))
    assert sampled == expected
    assert {path: data for path, data in contents(take).items() if path in before} == before
    for base in (take, changed):
        again = retaken(with_versions_of(base, Take.load(take.folder)), 2, 9, mode=mode)
        assert again == changed
        film = take_film(again, recorder)
        assert not film.needs_model
        replayed, sampled = recorder.run(film)
        assert sampled == [] and torch.equal(joined(replayed), joined(blocks))


@pytest.mark.parametrize("mode", ["ripple", "keep"])
@pytest.mark.parametrize("count", range(BLOCKS))
def test_a_retake_cut_off_goes_on(recorder: SamplingRecorder, take: Take, mode: str, count: int) -> None:
    """In the very version that was begun, and no block is made twice."""
    changed = retaken(made(take, recorder), 2, 9, mode=mode)
    changed.save()
    run = take_film(changed, recorder).run()
    recorder.sampled = []
    for _ in range(count):
        next(run)
    del run
    first, saved = recorder.sampled, Take.load(take.folder)
    for base in (take, saved):
        assert retaken(with_versions_of(base, saved), 2, 9, mode=mode) == changed
    _, sampled = recorder.run(take_film(changed, recorder))
    assert first + sampled == ([2, 3, 4] if mode == "ripple" else [2])


def test_versions_of_a_shot_side_by_side(recorder: SamplingRecorder, take: Take) -> None:
    """Two seeds of a shot are two versions; each is found again from the film as first made, its followers too."""
    made(take, recorder)
    films: dict[int, Tensor] = {}
    for seed in (9, 10, 9, 10):
        saved = Take.load(take.folder)
        changed = retaken(with_versions_of(take.as_begun, saved), 2, seed)
        changed.save()
        blocks, sampled = recorder.run(take_film(changed, recorder))
        if seed in films:
            assert sampled == [] and torch.equal(joined(blocks), films[seed])
        films[seed] = joined(blocks)
    assert [len(shot.versions) for shot in Take.load(take.folder).shots] == [1, 3, 3]


@pytest.mark.parametrize("mode", ["ripple", "keep"])
def test_a_locked_shot_is_not_retaken(recorder: SamplingRecorder, take: Take, mode: Mode) -> None:
    """Neither with a new seed nor with the seed of another version; a retake that changes nothing is allowed."""
    first = made(retaken(made(take, recorder), 2, 9), recorder)
    locked = lock_shot(made(retaken(first, 2, 10), recorder), 2, True)
    for seed in (9, 11):
        with pytest.raises(ValueError, match="shot 2 is locked"):
            retaken(locked, 2, seed, mode=mode)
    assert retaken(locked, 2, 10, mode=mode) == locked


def test_a_ripple_goes_around_a_locked_shot(recorder: SamplingRecorder, take: Take) -> None:
    """A locked shot behind the retaken one keeps its version, spliced, though it has one made for this retake."""
    first = made(retaken(made(take, recorder), 2, 9), recorder)
    locked = lock_shot(made(retaken(first, 2, 10), recorder), 3, True)
    changed = retaken(locked, 2, 9)
    assert [shot.chosen for shot in changed.shots] == [0, 1, 2]
    assert [shot.spliced for shot in changed.shots] == [False, False, True]
    assert recorder.run(take_film(changed, recorder))[1] == []


def test_retakes_in_a_row(recorder: SamplingRecorder, take: Take) -> None:
    """Two shots retaken one after the other, as by two nodes: asked for again, both are there."""

    def both() -> Take:
        changed = take.as_begun
        for number, seed in ((2, 9), (3, 4)):
            changed = retaken(with_versions_of(changed, Take.load(take.folder)), number, seed)
            changed.save()
        return changed

    made(take, recorder)
    first = both()
    assert recorder.run(take_film(first, recorder))[1] == [2, 3, 4]
    assert both() == first
    assert recorder.run(take_film(first, recorder))[1] == []


def test_keep_and_then_ripple(recorder: SamplingRecorder, take: Take) -> None:
    """The same shot, first spliced, then with the shots behind it made again: only those are sampled."""
    made(take, recorder)
    kept = retaken(take, 2, 9, mode="keep")
    kept.save()
    recorder.run(take_film(kept, recorder))
    rippled = retaken(kept, 2, 9, mode="ripple")
    blocks, sampled = recorder.run(take_film(rippled, recorder))
    assert sampled == [3, 4]
    script = ShotScript.parse(SCRIPT.replace("B", "B @seed=9"))
    whole, _ = recorder.run(Film(script.plan(24.0, 2), recorder))
    assert torch.equal(joined(blocks), joined(whole))


def test_a_version_on_other_blocks_is_made_anew(recorder: SamplingRecorder, take: Take) -> None:
    """A version that was made behind another shot 1 does not follow from this one: it stays, and there is a new one."""
    second = made(retaken(made(take, recorder), 2, 9), recorder)
    first = made(retaken(second, 1, 5), recorder)
    back = retaken(replace(first, shots=first.shots), 2, 0)
    made(back, recorder)
    found = retaken(back, 2, 9)
    version = found.shots[1].versions[found.shots[1].chosen]
    assert version.seed == 9 and found.shots[1].chosen == 2
    assert recorder.run(take_film(found, recorder))[1] == []


def test_what_is_not_made_cannot_be_kept(recorder: SamplingRecorder, take: Take) -> None:
    """A shot made behind the retake would not be the film's own; in an unfinished film, shots can follow only."""
    list(zip(range(4), stored_film(Film(take.plan, recorder), take).run(), strict=False))
    with pytest.raises(ValueError, match="shot 3 is not made yet"):
        retaken(take, 1, 5, mode="keep")
    assert len(retaken(take, 1, 5).shots[2].versions) == 2
    assert len(retaken(take, 3, 5, mode="keep").shots[2].versions) == 2


def test_a_film_takes_what_came_to_its_take(recorder: SamplingRecorder, take: Take) -> None:
    """Blocks that were made for a retake, of shots that it left, are not made again for the film."""
    film = stored_film(Film(take.plan, recorder), take)
    recorder.run(take_film(retaken(take, 3, 5), recorder))
    assert film.needs_model and film.available == 3
    assert recorder.run(film)[1] == [3, 4]


def test_a_take_that_became_another_film_is_refused(take: Take) -> None:
    """A retake is not written over shots that were added since the take was loaded."""
    longer = Take.new(take.folder, ShotScript.parse(SCRIPT + "D"), SETTINGS, {})
    for other in (longer, Take.new(take.folder, ShotScript.parse(SCRIPT.replace("B", "D")), SETTINGS, {})):
        with pytest.raises(ValueError, match="has become another film"):
            with_versions_of(take, other)


def test_locks_are_those_on_disk(take: Take) -> None:
    """Set or taken off since the take was loaded, by another program."""
    locked = lock_shot(take, 2, True)
    for mine, saved in ((take, locked), (locked, take)):
        assert with_versions_of(mine, saved) == saved


def test_a_prompt_is_a_line_of_the_script(recorder: SamplingRecorder, take: Take) -> None:
    """An empty one leaves the words, another one changes them; two shots in one are refused."""
    made(take, recorder)
    changed = retaken(take, 3, 4, "  D ")
    assert [shot.prompt for shot in changed.script.shots] == ["A", "B", "D"]
    assert retaken(changed, 3, 5).script.shots[2].prompt == "D"
    with pytest.raises(ValueError, match="reads as more than one shot"):
        retaken(take, 2, 4, "D | A")
    with pytest.raises(ValueError, match="this film has 3"):
        retaken(take, 4, 4)


@pytest.fixture
def given(take: Take) -> Take:
    """A take whose first shot is a given video."""
    return replace(take, shots=(Shot((Version("A", None, GIVEN_VIDEO),)), *take.shots[1:]))


def test_a_given_video_is_never_sampled(recorder: SamplingRecorder, given: Take) -> None:
    """Neither as a retake nor where its blocks are missing."""
    with pytest.raises(ValueError, match="is a given video"):
        retaken(given, 1, 3)
    with pytest.raises(ValueError, match="video"):
        list(take_film(given, recorder).run())
    assert recorder.sampled == []


def test_a_start_image_begins_every_version(recorder: SamplingRecorder, tmp_path: Path) -> None:
    """A retake of the first shot begins with the image too, which only the film's first block has."""
    settings = {**SETTINGS, "start": "image 0"}
    take = Take.new(tmp_path / "film.take", ShotScript.parse(SCRIPT), settings, {})
    image = torch.randn(1, 4, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match="begins with an image"):
        list(take_film(take, recorder).run())
    recorder.run(stored_film(Film(take.plan, recorder, start=image), take))
    changed = retaken(take, 1, 3)
    blocks, sampled = recorder.run(take_film(changed, recorder))
    assert sampled == list(range(BLOCKS))
    whole, _ = recorder.run(Film(changed.plan, recorder, start=image))
    assert torch.equal(joined(blocks), joined(whole)) and torch.equal(blocks[0].latents[:, :, :1], image)


def test_a_stop_ends_a_take_s_draw(recorder: SamplingRecorder, take: Take) -> None:
    """Finished blocks are stored; the next run continues after them."""

    def answers() -> Iterator[bool]:
        yield from [False] * 7
        while True:
            yield True

    questions = answers()
    film = take_film(take, recorder)
    shown = list(film.run(should_stop=lambda: next(questions)))
    assert 0 < len(shown) < BLOCKS and film.available == len(shown)
    assert recorder.run(film)[1] == list(range(len(shown), BLOCKS))
