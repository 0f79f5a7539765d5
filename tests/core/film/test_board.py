"""A storyboard in a take that follows its script: stills stay where their shots stay, and the film begins with them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.kept_store import KeptStore
from longlive.longlive_core.film.live_script import LiveScript
from longlive.longlive_core.film.take_store import TakeStore
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.script.storyboard import storyboard_blocks, storyboard_plan
from longlive.longlive_core.take import Take, follow, preview_changes
from longlive.longlive_core.take.storyboard import accept, carry_storyboard, with_storyboard
from safetensors.torch import load_file
from torch import Tensor

from ..takes import same, take_film
from .test_take_film import SCRIPT, SETTINGS, SamplingRecorder, recorder, take

__all__ = ["recorder", "take"]

ALL = [0, 2, 3]


def boarded(take: Take, recorder: SamplingRecorder) -> tuple[Take, list[int]]:
    """The take with its storyboard made, and the indices in the storyboard of the blocks that were sampled for it."""
    take = with_storyboard(take)
    take.save()
    film = Film(storyboard_plan(take.plan), recorder, TakeStore(take, storyboard=True))
    _, sampled = recorder.run(film)
    assert film.complete and not film.needs_model
    return Take.load(take.folder), sampled


def openings(take: Take) -> list[Tensor]:
    """The latents of the first block of every shot."""
    return [load_file(take.path(spec))["latents"].clone() for spec in storyboard_blocks(take.plan)]


def states(take: Take, script: str) -> list[tuple[str, bool, int | None]]:
    """What becomes of each shot: its state, whether it begins with the storyboard, and the shot that it was."""
    changes = preview_changes(take, ShotScript.parse(script))
    return [(shot.state, shot.board, shot.source) for shot in changes.shots]


def test_the_film_begins_with_the_board(take: Take, recorder: SamplingRecorder) -> None:
    """Each block of the storyboard is the first of its shot in the film, and is not sampled again."""
    take, sampled = boarded(take, recorder)
    assert sampled == [0, 1, 2] and states(take, SCRIPT) == [("new", True, 0), ("kept", True, 1), ("new", True, 2)]
    first = openings(take)
    assert recorder.run(take_film(take, recorder))[1] == [1, 4]
    assert take.complete and all(same(openings(take), first))


def test_an_edit_leaves_the_other_stills(take: Take, recorder: SamplingRecorder) -> None:
    """Only the changed shot gets a new still; undone, the old one is there."""
    take, _ = boarded(take, recorder)
    first, edited = openings(take), SCRIPT.replace(": B", ": D")
    assert states(take, edited) == [("new", True, 0), ("remade", False, None), ("new", True, 2)]
    changed, sampled = boarded(follow(take, ShotScript.parse(edited)), recorder)
    assert sampled == [1] and same(openings(changed), first) == [True, False, True]
    back, sampled = boarded(follow(changed, ShotScript.parse(SCRIPT)), recorder)
    assert sampled == [] and all(same(openings(back), first))


def test_an_edit_of_a_made_film_leaves_the_beginnings(take: Take, recorder: SamplingRecorder) -> None:
    """On the storyboard of an edited film, later shots begin with their earlier blocks; the rest is sampled anew."""
    take, _ = boarded(take, recorder)
    first = openings(take)
    accept(take, None, True).save()
    assert recorder.run(take_film(Take.load(take.folder), recorder))[1] == [1, 4]
    changed, sampled = boarded(follow(Take.load(take.folder), ShotScript.parse(SCRIPT.replace(": B", ": D"))), recorder)
    assert sampled == [1] and same(openings(changed), first) == [True, False, True]
    assert [shot.is_accepted for shot in changed.shots] == [True, False, True]
    assert recorder.run(take_film(changed, recorder))[1] == [4]
    assert changed.complete and same(openings(changed), first) == [True, False, True]


def test_stills_move_with_their_shots(take: Take, recorder: SamplingRecorder, tmp_path: Path) -> None:
    """In another film a shot of the same text, seed and cut has its still wherever it is; a new shot has none."""
    take, _ = boarded(take, recorder)
    take.still(2, 0).write_bytes(b"picture")
    accept(take, 3, True).save()
    take = Take.load(take.folder)
    script = "Shot 1 (3 blocks): A\nShot 2 (1 block): C\nShot 3 (1 block): D\nShot 4 (2 blocks): B\n"
    assert states(take, script) == [("remade", True, 0), ("kept", True, 2), ("new", False, None), ("new", True, 1)]
    other = Take.new(tmp_path / "other.take", ShotScript.parse(script), SETTINGS, {})
    other.save()
    other = carry_storyboard(take, other)
    assert [shot.versions[0].made for shot in other.shots] == ["preview", "preview", "render", "preview"]
    assert other.still(1, 0).read_bytes() == b"picture"
    assert [shot.is_accepted for shot in Take.load(other.folder).shots] == [False, True, False, False]
    before = openings(take)
    other, sampled = boarded(other, recorder)
    assert sampled == [2] and all(same(openings(other)[:2] + openings(other)[3:], [before[0], before[2], before[1]]))
    settings = {**SETTINGS, "seed": 1}
    assert carry_storyboard(take, fresh := Take.new(tmp_path / "a.take", take.script, settings, {})) == fresh


def test_stills_are_accepted_one_by_one_or_all(take: Take, recorder: SamplingRecorder) -> None:
    """The still of a version is accepted: another version of the shot is not, and undone the first one still is."""
    with pytest.raises(ValueError, match="shot 2 has no beginning to accept"):
        accept(take, 2, True)
    take, _ = boarded(take, recorder)
    one = accept(take, 2, True)
    assert [shot.is_accepted for shot in one.shots] == [False, True, False]
    edited = follow(one, ShotScript.parse(SCRIPT.replace(": B", ": D")))
    assert not edited.shots[1].is_accepted and follow(edited, take.script).shots[1].is_accepted
    assert [shot.is_accepted for shot in accept(edited, None, True).shots] == [True, False, True]
    assert not accept(one, 2, False).shots[1].is_accepted
    with pytest.raises(ValueError, match="this film has 3 shots"):
        accept(take, 4, True)


def test_a_live_script_replaces_a_stored_beginning(take: Take, recorder: SamplingRecorder) -> None:
    """A shot that is changed before the film reaches it is sampled, though the storyboard has its first block."""
    take, _ = boarded(take, recorder)
    live = LiveScript(take.script, take.plan)
    film = Film(take.plan, recorder, TakeStore(take, live=live), live=live)
    recorder.sampled = []
    with closing(film.run()) as run:
        blocks = [next(run)]
        live.change(SCRIPT.replace(": B", ": D"))
        blocks += run
    assert [block.spec.prompt for block in blocks][2].endswith("D") and recorder.sampled == [1, 2, 3, 4]
    kept = Take.load(take.folder)
    assert [[version.text for version in shot.versions] for shot in kept.shots] == [["A"], ["B", "D"], ["C", "C"]]
    assert kept.complete and kept.plan.blocks == film.plan.blocks
    assert torch.equal(blocks[2].latents, openings(kept)[1])


def test_blocks_in_memory_that_follow_another_beginning_are_not_kept(take: Take, recorder: SamplingRecorder) -> None:
    """A film that was begun without the storyboard enters the take up to the first block that differs."""
    film = Film(take.plan, recorder)
    blocks, _ = recorder.run(film)
    take, _ = boarded(take, recorder)
    store = KeptStore(take)
    store.adopt(blocks)
    first = openings(take)
    assert [take.path(spec).is_file() for spec in take.plan.blocks] == [True, True, True, True, False]
    film.store = store
    assert recorder.run(film)[1] == [4] and all(same(openings(take), first))


def test_a_shot_without_a_still_is_no_part_of_the_board(tmp_path: Path, recorder: SamplingRecorder) -> None:
    """A shot that continues has no beginning of its own, and a damaged one is made again alone."""
    script = ShotScript.parse("Shot 1 (1 block): A\nShot 2 (1 block, continue): B\nShot 3 (1 block): C\n")
    take = Take.new(tmp_path / "film.take", script, SETTINGS, {})
    take.save()
    take, sampled = boarded(take, recorder)
    assert sampled == [0, 1] and [shot.versions[0].made for shot in take.shots] == ["preview", "render", "preview"]
    path = take.path(take.plan.blocks[2])
    path.write_bytes(path.read_bytes()[:-9])
    assert boarded(replace(take), recorder)[1] == [1]
