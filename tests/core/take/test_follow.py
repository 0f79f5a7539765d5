"""A take follows an edited script: only what changed is sampled, and the film is that of a straight render."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.take import Take, follow, lock_shot, preview_changes, retake
from longlive.longlive_core.take.carry_over import carry_over
from longlive.longlive_core.take.changes import Changes
from longlive.longlive_core.take.lock import TakeLock
from longlive.longlive_core.take.pace import load_pace, save_pace
from longlive.longlive_core.take.remove import remove
from longlive.longlive_core.take.take import bytes_in

from ..takes import SCRIPT, after, latents, make_settings, make_take, resume, same

# Films are rendered by nearly every test here.
pytestmark = pytest.mark.slow

# Blocks 0 and 1 are shot 1; every later shot has one block.
EDITED = SCRIPT.replace("@seed=4", "@seed=9")
RETOLD = SCRIPT.replace("Shot 4 (1 block): the other", "Shot 4 (1 block): {thing}")


@pytest.fixture
def take(mini: Mini, tmp_path: Path) -> Take:
    return make_take(mini, make_settings(tmp_path))


def straight(mini: Mini, folder: Path, script: str, **changes: object) -> list[torch.Tensor]:
    """The blocks of an uninterrupted render of a script."""
    path = folder / "straight.txt"
    path.write_text(script)
    settings = RenderSettings(path, folder / "straight.mp4", size="32x32", steps=2)
    return latents(make_take(mini, replace(settings, **changes)))  # type: ignore[arg-type]


def followed(take: Take, mini: Mini, script: str) -> Job:
    """Makes the film of an edited script in the same take, and checks that its changes were announced."""
    edited = ShotScript.parse(script)
    changes = preview_changes(take, edited)
    job = Job(RenderSettings.resumed(take.folder), take=follow(take, edited), mini=mini)
    assert job.run()
    assert job.film.report.stored == [i for i, state in enumerate(states(changes)) if state == "kept"]
    return job


def states(changes: Changes) -> list[str]:
    return [block for shot in changes.shots for block in shot.blocks]


def test_an_edited_shot_and_those_after_it_are_sampled(mini: Mini, take: Take, tmp_path: Path) -> None:
    """The film equals a straight render of the edited script; earlier versions stay on disk."""
    whole = latents(take)
    job = followed(take, mini, EDITED)
    assert job.take is not None and job.film.report.sampled == [3, 4, 5]
    assert all(same(latents(job.take), straight(mini, tmp_path, EDITED)))
    assert [len(shot.versions) for shot in job.take.shots] == [1, 1, 2, 2, 2]
    assert all(same(latents(take), whole)) and job.take.script == ShotScript.parse(EDITED)


def test_an_edit_that_is_undone_samples_nothing(mini: Mini, take: Take) -> None:
    """The versions that were made after each other are chosen again, forth and back, and none is added."""
    followed(take, mini, EDITED)
    for script, chosen in ((SCRIPT, [0, 0, 0, 0, 0]), (EDITED, [0, 0, 1, 1, 1])):
        now = Take.load(take.folder)
        changes = preview_changes(now, ShotScript.parse(script))
        assert [shot.state for shot in changes.shots] == ["kept", "kept", "restored", "restored", "restored"]
        assert changes.line() == "nothing is sampled: all 6 blocks are kept"
        job = followed(now, mini, script)
        assert job.take is not None and not job.film.report.sampled
        assert [shot.chosen for shot in job.take.shots] == chosen
    assert [len(shot.versions) for shot in Take.load(take.folder).shots] == [1, 1, 2, 2, 2]


def test_an_edit_of_an_unfinished_film_is_resumed(mini: Mini, take: Take, tmp_path: Path) -> None:
    """A stopped film whose unmade and made shots are edited becomes the straight render; it may stop again."""
    for path in take.folder.glob("shots/00[345]/v0/*"):
        path.unlink()
    both = EDITED.replace("Shot 2 (1 block): the other", "Shot 2 (1 block): {thing}")
    changes = preview_changes(take, ShotScript.parse(both))
    assert states(changes) == ["kept", "kept", "remade", "new", "new", "new"]
    assert changes.line().startswith("shots 2 to 5, 4 of 6 blocks")
    edited = follow(take, ShotScript.parse(both))
    assert not Job(RenderSettings.resumed(take.folder), take=edited, mini=mini, should_stop=after(8)).run()
    stopped = Take.load(take.folder)
    assert 2 < stopped.block_count() < 6
    assert follow(stopped, ShotScript.parse(both)) == stopped
    job, _ = resume(take, mini)
    assert all(same(latents(job.take or take), straight(mini, tmp_path, both)))
    assert [len(shot.versions) for shot in (job.take or take).shots] == [1, 2, 2, 1, 1]


def test_a_locked_shot_keeps_its_blocks(mini: Mini, take: Take) -> None:
    """It is spliced while earlier shots change, and no longer when they change back; its own edit is refused."""
    whole = latents(take)
    lock_shot(take, 4, True).save()
    job = followed(Take.load(take.folder), mini, EDITED)
    assert job.take is not None and job.film.report.sampled == [3, 5]
    assert same(latents(job.take), whole) == [True] * 3 + [False, True, False]
    assert [shot.spliced for shot in job.take.shots] == [False, False, False, True, False]
    for call in (follow, preview_changes):
        with pytest.raises(ValueError, match="shot 4 is locked: unlock it, or give it its text and seed back: the ot"):
            call(job.take, ShotScript.parse(RETOLD))
    back = followed(job.take, mini, SCRIPT)
    assert back.take is not None and not back.film.report.sampled
    assert all(same(latents(back.take), whole)) and not any(shot.spliced for shot in back.take.shots)


def test_the_script_of_a_retake_changes_nothing(mini: Mini, take: Take) -> None:
    """A take with a splice follows its own script: `retake` and an edit of the script can be mixed."""
    changed = retake(take, 3, seed=9, mode="keep").take
    assert follow(changed, ShotScript.parse(changed.script.format())) == changed
    assert states(preview_changes(changed, changed.script)) == ["kept"] * 3 + ["remade"] + ["kept"] * 2
    assert Job(RenderSettings.resumed(take.folder), take=changed, mini=mini).run()
    job = followed(Take.load(take.folder), mini, SCRIPT)
    assert job.take is not None and not job.film.report.sampled
    assert [(shot.chosen, shot.spliced) for shot in job.take.shots] == [(0, False)] * 5


def test_a_damaged_block_of_an_unchanged_film_is_the_only_one_made_again(mini: Mini, take: Take) -> None:
    """Later blocks fit the one that is made again, because it is the same to the bit."""
    take.path(take.plan.blocks[2]).unlink()
    assert states(preview_changes(take, take.script)) == ["kept", "kept", "new", "kept", "kept", "kept"]
    job, _ = resume(take, mini)
    assert job.film.report.sampled == [2]


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        (SCRIPT.replace("Shot 3 (1 block)", "Shot 3 (2 blocks)"), 4),
        (SCRIPT + "Shot 6 (1 block): the other", 6),
        ("\n".join(SCRIPT.splitlines()[:4]), 4),
        (SCRIPT.replace("Shot 5 (1 block)", "Shot 5 (1 block) continue"), 5),
        ("style: the other\n" + SCRIPT, 0),
        (SCRIPT.replace("thing: the hero", "thing: the other"), 0),
    ],
)
def test_another_film_takes_over_the_first_blocks(
    mini: Mini, take: Take, tmp_path: Path, script: str, kept: int
) -> None:
    """A change of lengths, cuts, order or definitions: the new take samples only what differs, and equals a straight
    render. The earlier take stays as it is."""
    before = {path: path.read_bytes() for path in take.folder.rglob("*.safetensors")}
    edited = ShotScript.parse(script)
    changes = preview_changes(take, edited)
    assert changes.another_film and states(changes)[:kept] == ["kept"] * kept == ["kept"] * changes.count("kept")
    with pytest.raises(ValueError, match="begin a new take"):
        follow(take, edited)
    settings = replace(RenderSettings.resumed(take.folder), resume=None, output=tmp_path / "other.mp4")
    job = Job(settings, script=edited, earlier=take, mini=mini)
    assert job.run() and job.take is not None
    assert job.film.report.stored == list(range(kept))
    assert all(same(latents(job.take), straight(mini, tmp_path, script)))
    assert {path: path.read_bytes() for path in take.folder.rglob("*.safetensors")} == before
    assert all(job.take.record(spec) for spec in job.take.plan.blocks)
    if kept:
        one, other = (film.path(film.plan.blocks[0]) for film in (take, job.take))
        assert os.path.samefile(one, other) and job.film.report.replayed <= 1


def test_another_rate_takes_over_the_blocks_and_another_seed_none(take: Take, tmp_path: Path) -> None:
    """The rate changes no bit of a block, so that its file is written anew; a setting that changes bits keeps none."""
    assert preview_changes(take, take.script, {"seed": 1}).line().startswith("shots 1 to 5, 6 of 6 blocks")
    script = ShotScript.parse(SCRIPT)
    faster = preview_changes(take, script, {"fps": 30})
    assert faster.another_film and faster.count("kept") == 6
    other = Take.new(tmp_path / "other.take", script, {**take.settings, "fps": 30}, take.machine)
    other.save()
    assert carry_over(take, other) == 6
    assert all(same(latents(other), latents(take)))
    seeded = Take.new(tmp_path / "seeded.take", script, {**take.settings, "seed": 1}, take.machine)
    seeded.save()
    assert carry_over(take, seeded) == 0 and seeded.block_count() == 0


def test_the_time_is_told_at_the_pace_measured_last(take: Take) -> None:
    """A render measures its pace. Seconds are told only where one is known that holds for these settings."""
    measured = load_pace(take.folder)
    assert measured is not None and preview_changes(take, take.script, {"seed": 1}).seconds == 6 * measured
    (take.folder / "pace.json").unlink()
    assert preview_changes(take, ShotScript.parse(EDITED)).line() == "shots 3 to 5, 3 of 6 blocks"
    save_pace(take.folder, 1.5)
    assert load_pace(take.folder) == 1.5
    assert preview_changes(take, ShotScript.parse(EDITED)).line() == "shots 3 to 5, 3 of 6 blocks, about 4 s"
    assert preview_changes(take, take.script, {"steps": 4}).seconds is None
    (take.folder / "pace.json").write_text('{"seconds_per_block": "fast"}')
    assert load_pace(take.folder) is None


def test_the_command_line_follows_an_edited_script(
    capsys: pytest.CaptureFixture[str], mini: Mini, take: Take, tmp_path: Path
) -> None:
    """`--dry-run` says what would be sampled and renders nothing; `--resume` with the script samples just that."""
    mini.save(tmp_path / "mini", torch.float32)
    script, film = tmp_path / "edited.txt", tmp_path / "film.mp4"
    saved, written = (take.folder / "take.json").read_bytes(), film.read_bytes()

    def longlive(*words: str | Path, code: int = 0) -> str:
        assert main([str(word) for word in words]) == code
        printed = capsys.readouterr()
        return printed.out + printed.err

    def changed(text: str) -> None:
        script.write_text(text)
        (take.folder / "pace.json").unlink(missing_ok=True)

    changed(EDITED)
    assert longlive("render", script, "--resume", take.folder, "--dry-run") == "shots 3 to 5, 3 of 6 blocks\n"
    assert longlive("render", "--resume", take.folder, "--dry-run") == "nothing is sampled: all 6 blocks are kept\n"
    printed = longlive("render", script, "-o", film, "--dry-run")
    assert "a new film: 5 shots, 6 blocks, 7.9 s" in printed and "(--resume): shots 3 to 5, 3 of 6 blocks" in printed
    assert longlive("render", script, "-o", tmp_path / "b.mp4", "--dry-run").count("\n") == 1
    assert ((take.folder / "take.json").read_bytes(), film.read_bytes()) == (saved, written)
    assert not (tmp_path / "b.take").exists()
    common = ("--model", tmp_path / "mini")
    longlive("render", script, "--resume", take.folder, *common)
    edited = Take.load(take.folder)
    assert edited.complete and [shot.chosen for shot in edited.shots] == [0, 0, 1, 1, 1]
    changed(EDITED + "Shot 6 (1 block): the other")
    printed = longlive("render", script, "--resume", take.folder, "--dry-run")
    assert printed == "another film: shot 6, 1 of 7 blocks\n"
    printed = longlive("render", script, "--resume", take.folder, *common, code=2)
    assert "name it with -o, and 6 of 6 blocks are taken over" in printed
    printed = longlive("render", script, "--resume", take.folder, "-o", tmp_path / "b.mp4", *common)
    assert "note: 6 blocks taken over from" in printed
    assert Take.load(tmp_path / "b.take").complete


def test_a_take_is_removed_and_nothing_else(mini: Mini, take: Take) -> None:
    """The film stays, and so does a file of the user's in the folder; a folder without one goes."""
    film, own = take.folder.with_name("film.mp4"), take.folder / "notes.txt"
    own.write_text("mine")
    size = bytes_in(take.folder)
    with TakeLock(take.folder):
        assert remove(take) == size - 4
    assert film.is_file() and own.read_text() == "mine" and not list(take.folder.glob("shots"))
    own.unlink()
    make_take(mini, make_settings(take.folder.parent))
    with TakeLock(take.folder):
        remove(take)
    assert not take.folder.exists()
