"""A shot made again leaves every other block as it was, and no version is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take, choose, lock_shot, prune, retake
from longlive.longlive_core.take.retake import Mode
from longlive.longlive_core.take.take import bytes_in

from ..takes import SCRIPT, after, latents, remade, resume, same

# Films are rendered by nearly every test here.
pytestmark = pytest.mark.slow


def test_a_ripple_changes_its_shot_and_those_after(mini: Mini, take: Take) -> None:
    """The same film that a render of the changed script makes; the old versions stay beside the new ones."""
    whole = latents(take)
    job = remade(take, mini, 3, "ripple", seed=9)
    assert job.take is not None
    assert same(latents(job.take), whole) == [True] * 3 + [False] * 3
    assert (job.film.report.stored, job.film.report.sampled) == ([0, 1, 2], [3, 4, 5])
    assert job.film.report.share_of_calls(2) == 3 * 3 / 18
    assert all(same(latents(take), whole))
    script = take.folder.parent / "changed.txt"
    script.write_text(SCRIPT.replace("@seed=4", "@seed=9"))
    anew = Job(RenderSettings(script, take.folder.parent / "anew.mp4", size="32x32", steps=2), mini=mini)
    assert anew.run() and anew.take is not None
    assert all(same(latents(job.take), latents(anew.take)))
    assert anew.settings.output.read_bytes() == job.settings.output.read_bytes()


def test_keep_changes_its_shot_only(mini: Mini, take: Take) -> None:
    """A retake in mode `keep` samples its shot alone; later shots stay to the bit and are spliced."""
    whole = latents(take)
    job = remade(take, mini, 3, "keep", prompt="the other {thing}")
    assert job.take is not None
    assert same(latents(job.take), whole) == [True, True, True, False, True, True]
    assert job.film.report.sampled == [3]
    assert [shot.spliced for shot in job.take.shots] == [False, False, False, True, True]
    assert job.take.script.shots[2].prompt == "the other the hero"


def test_a_retake_begins_from_the_memory_of_its_shot(mini: Mini, take: Take) -> None:
    """With the snapshot no clean pass is replayed; without it, or if it is damaged or of other blocks, all are. The
    film is the same bit for bit."""
    snapshot_paths = take.snapshot_paths()
    assert [path.name[:12] for path in snapshot_paths] == [f"before_{index:05}" for index in (2, 3, 4, 5)]
    kept = {path: path.read_bytes() for path in snapshot_paths}

    def made(replayed: int) -> list[torch.Tensor]:
        job = remade(Take.load(take.folder), mini, 4, "ripple", seed=9)
        assert job.film.report.replayed == replayed
        film = latents(job.take or take)
        take.save()
        for path in take.folder.glob("shots/*/v1/*"):
            path.unlink()
        return film

    expected = made(0)
    snapshot_paths[2].write_bytes(kept[snapshot_paths[2]][:-9])
    assert all(same(made(1), expected))  # from the memory of the shot before, and its block
    for path in snapshot_paths:
        path.unlink(missing_ok=True)
    snapshot_paths[2].with_name(snapshot_paths[2].name.replace(".", ".0", 1)).write_bytes(kept[snapshot_paths[2]])
    assert all(same(made(4), expected))


def test_a_locked_shot_stays_when_those_before_it_are_made_again(mini: Mini, take: Take) -> None:
    """A locked shot stays to the bit in a retake of an earlier one, and its own retake is refused."""
    whole = latents(take)
    lock_shot(take, 4, True).save()
    job = remade(Take.load(take.folder), mini, 3, "ripple", seed=9)
    assert same(latents(job.take or take), whole) == [True] * 3 + [False, True, False]
    with pytest.raises(ValueError, match="shot 4 is locked"):
        retake(Take.load(take.folder), 4, seed=1)


@pytest.mark.parametrize("mode", ["ripple", "keep"])
def test_a_stopped_retake_goes_on_or_back(mini: Mini, take: Take, mode: Mode) -> None:
    """A stopped retake resumes to the bit, and the version before it can be chosen again, without a splice."""
    whole = latents(take)
    expected = latents(remade(take, mini, 2, mode, seed=9).take or take)
    Take.new(take.folder, take.script, take.settings, take.machine).save()
    for path in take.folder.glob("shots/*/v1/*"):
        path.unlink()
    changed = retake(take, 2, seed=9, mode=mode).take
    assert not Job(RenderSettings.resumed(take.folder), take=changed, mini=mini, should_stop=after(6)).run()
    job, _ = resume(take, mini)
    assert all(same(latents(job.take or take), expected))
    back, _ = choose(Take.load(take.folder), 2, 0)
    assert all(same(latents(back), whole)) and not any(shot.spliced for shot in back.shots)


def test_an_earlier_version_brings_those_that_follow_it(mini: Mini, take: Take) -> None:
    """A chosen version brings those that were made after it, or new ones, and is refused after other blocks."""
    remade(take, mini, 3, "ripple")
    changed = Take.load(take.folder)
    assert [shot.chosen for shot in changed.shots] == [0, 0, 1, 1, 1]
    assert changed.shots[2].versions[1].seed == 1
    back, notes = choose(changed, 3, 0)
    assert [shot.chosen for shot in back.shots] == [0] * 5 and len(notes) == 2
    with pytest.raises(ValueError, match="version 1 of shot 5 was made after other blocks"):
        choose(back, 5, 1)
    with pytest.raises(ValueError, match="shot 3 has no version 2; it has 2"):
        choose(back, 3, 2)
    # Version 0 of shot 3 no longer has anything made after it once its followers are gone.
    for number in (4, 5):
        for path in take.shot_folder(number - 1, 0).iterdir():
            path.unlink()
    renewed, notes = choose(changed, 3, 0)
    assert [shot.chosen for shot in renewed.shots] == [0, 0, 0, 2, 2] and not any(
        shot.spliced for shot in renewed.shots
    )
    assert notes[0] == "shot 4 gets a new version, which is sampled after this one"


def test_a_spliced_shot_stays_where_versions_are_chosen(mini: Mini, take: Take) -> None:
    """A splice ends when the version before it is chosen, and is back when its version is chosen again."""
    remade(take, mini, 3, "keep", seed=9)
    spliced = Take.load(take.folder)
    plain, _ = choose(spliced, 3, 0)
    assert not any(shot.spliced for shot in plain.shots)
    again, notes = choose(plain, 3, 1)
    assert again == spliced and len(notes) == 2


def test_a_version_chosen_behind_other_blocks_is_marked_as_a_splice(mini: Mini, take: Take) -> None:
    """A spliced shot stays spliced when its version is chosen again; without the mark its blocks would be resampled."""
    remade(take, mini, 3, "keep", seed=9)
    spliced = Take.load(take.folder)
    chosen, notes = choose(spliced, 4, 0)
    assert [shot.spliced for shot in chosen.shots] == [False, False, False, True, True]
    assert notes == ("shot 5 stays unchanged, spliced: it was made after other blocks",)
    chosen.save()
    job, _ = resume(chosen, mini)
    assert not job.film.report.sampled


def test_prune_removes_what_is_not_in_the_film(mini: Mini, take: Take) -> None:
    """And no still: the film is written as before, and a version that was removed can be made again."""
    whole = latents(take)
    job = remade(take, mini, 3, "ripple", seed=9)
    changed, film = Take.load(take.folder), job.settings.output.read_bytes()
    (take.folder / "shots" / "003" / "v1" / "block_00003.partial").write_bytes(b"torn")
    take.still(2, 0).write_bytes(b"a picture")
    before = bytes_in(changed.folder)
    freed = prune(changed)
    assert freed == before - bytes_in(changed.folder) > 3 * whole[0].nbytes
    assert sorted(path.parent.name for path in take.folder.glob("shots/*/*/block*")) == ["v0"] * 3 + ["v1"] * 3
    assert [path.name for path in take.folder.glob("shots/00[345]/v0/*")] == [take.still(2, 0).name]
    job, _ = resume(changed, mini)
    assert job.film.report is not None and not job.film.report.sampled
    assert job.settings.output.read_bytes() == film


def test_bad_retakes_are_refused_and_change_nothing(mini: Mini, settings: RenderSettings, take: Take) -> None:
    """A retake that cannot be made is refused and changes nothing, and a new render does not remove retakes."""
    before = (take.folder / "take.json").read_bytes()
    for number, change, message in (
        (9, {"seed": 1}, "shot 9: this film has 5"),
        (0, {"seed": 1}, "shot 0: this film has 5"),
        (3, {"seed": 4}, "this text and seed already"),
        (3, {"seed": -1}, "seed -1 is outside"),
        (3, {"prompt": "the | hero"}, "more than one shot"),
        (3, {"prompt": ""}, "without text"),
        (3, {"prompt": "{nobody}"}, "nobody"),
    ):
        with pytest.raises(ValueError, match=message):
            retake(take, number, **change)  # type: ignore[arg-type]
    assert (take.folder / "take.json").read_bytes() == before
    remade(take, mini, 5, "ripple")
    with pytest.raises(FileExistsError, match="has retakes that a new render would remove"):
        Job(settings, mini=mini)


def test_the_command_line_from_render_to_prune(
    capsys: pytest.CaptureFixture[str], mini: Mini, settings: RenderSettings, tmp_path: Path
) -> None:
    """`longlive retake` and `longlive takes` make, show, choose, lock and prune versions, and say what was sampled."""
    mini.save(tmp_path / "mini", torch.float32)
    folder = tmp_path / "film.take"

    def longlive(*words: str | Path) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    common = ("--model", tmp_path / "mini", "--size", "32x32", "--steps", "1")
    longlive("render", settings.script or "", "-o", settings.output, *common)
    assert "film.take: 5 shots, 7.9 s, complete" in longlive("takes", "list", tmp_path)
    printed = longlive("retake", folder, "--shot", "3", "--seed", "9", "--mode", "keep", "-o", tmp_path / "b.mp4")
    assert "reused blocks 0 to 2, 4 to 5; sampled block 3: 1 of 6 blocks, 17% of a whole" in printed
    assert "shot 4 is spliced after shot 3; step across the seam" in printed and "(before the retake" in printed
    assert (tmp_path / "b.mp4").read_bytes() != settings.output.read_bytes()
    assert "* version 1: seed 9, 1 of 1 block" in longlive("takes", "show", folder)
    assert "shot 3 is version 0" in longlive("takes", "choose", folder, "--shot", "3", "--version", "0")
    longlive("render", "--resume", folder, "-o", tmp_path / "c.mp4")
    assert (tmp_path / "c.mp4").read_bytes() == settings.output.read_bytes()
    assert "snapshots of the KV cache before shots: 4 files" in longlive("takes", "show", folder)
    assert "freed" in longlive("takes", "prune", folder) and len(Take.load(folder).snapshot_paths()) == 4
    assert "freed" in longlive("takes", "prune", folder, "--memory") and not Take.load(folder).snapshot_paths()
    assert "shot 5 is locked" in longlive("takes", "lock", folder, "--shot", "5")
    assert "shot 5, locked" in longlive("takes", "show", folder)
    longlive("takes", "unlock", folder, "--shot", "5")
    printed = longlive("retake", folder, "--shot", "1", "--mode", "keep")
    assert "sampled blocks 0 to 1" in printed and "rebuilt" not in printed
    assert main(["retake", str(folder), "--shot", "9"]) == 2
    assert "this film has 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "text", "seed"),
    [
        ("Shot 2: the hero", "the hero", None),
        ("Shot 2 (1 block): the hero", "the hero", None),
        ("Shot 2 (1.3s): {thing} @seed=8", "{thing}", 8),
        ("(32 frames): the hero", "the hero", None),
        ("Shot 2 (1 block):\nthe hero\nthe other", "the hero the other", None),
        ("the hero, shot 2 (4s) of it", "the hero, shot 2 (4s) of it", None),
        ("the other {thing} @seed=3", "the other {thing}", 3),
    ],
)
def test_a_header_that_changes_nothing_is_not_part_of_the_prompt(
    take: Take, prompt: str, text: str, seed: int | None
) -> None:
    """A retake's prompt may be a whole line of the script, if its length is that of the shot."""
    changed = retake(take, 2, prompt=prompt).take
    version = changed.shots[1].versions[-1]
    assert (version.text, version.seed) == (text, seed)
    assert [block.shot for block in changed.plan.blocks] == [block.shot for block in take.plan.blocks]


@pytest.mark.parametrize(
    "prompt",
    [
        "Shot 2 (4s): the hero",
        "Shot 2 (2 blocks): the hero",
        "[3s-9s]: the hero",
        "Shot 2 (1 block) continue: the hero",
        "Shot 2 (8s)\nthe hero",
    ],
)
def test_a_header_that_would_change_the_film_is_refused(take: Take, prompt: str) -> None:
    """Another length, start or transition is an error that gives the prompt without its header."""
    with pytest.raises(ValueError, match=r"a retake keeps the length.*leave the header out: 'the hero'"):
        retake(take, 2, prompt=prompt)
