"""Shots behind a finished film: those that are there stay as they are, to the bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.script import ScriptError, ShotScript
from longlive.longlive_core.take import Take, lock_shot
from longlive.longlive_core.take.append import append

from ..takes import BLOCKS, SCRIPT, latents, make_settings, make_take, remade, resume, same

# Films are rendered by nearly every test here.
pytestmark = pytest.mark.slow

MORE = "Shot 1 (1 block) continue: the other {thing}\nShot 2 (2 blocks): the hero @seed=5\n"


@pytest.fixture
def take(mini: Mini, tmp_path: Path) -> Take:
    return make_take(mini, make_settings(tmp_path))


def a_take(script: str) -> Take:
    """One of a script alone, with nothing on disk."""
    return Take.new(Path("film.take"), ShotScript.parse(script), {"fps": 24, "block_frames": 8}, {})


def extended(mini: Mini, take: Take, text: str = MORE) -> Job:
    job = Job(RenderSettings.resumed(take.folder), take=append(take, text), mini=mini)
    assert job.run()
    return job


def test_a_film_goes_on_as_if_it_had_been_ordered_whole(mini: Mini, take: Take) -> None:
    """A film with added shots equals the film of the whole script to the bit, and only the new blocks are sampled."""
    whole = latents(take)
    job = extended(mini, take)
    assert job.film.report is not None
    assert (job.film.report.stored, job.film.report.sampled) == (list(range(BLOCKS)), [6, 7, 8])
    longer = Take.load(take.folder)
    assert all(same(latents(longer)[:BLOCKS], whole))
    script = take.folder.parent / "whole.txt"
    script.write_text(SCRIPT + "Shot 6 (1 block) continue: the other {thing}\nShot 7 (2 blocks): the hero @seed=5\n")
    anew = Job(RenderSettings(script, take.folder.parent / "anew.mp4", size="32x32", steps=2), mini=mini)
    assert anew.run() and anew.take is not None
    assert anew.take.script == longer.script and all(same(latents(longer), latents(anew.take)))
    assert anew.settings.output.read_bytes() == take.film.read_bytes()


def test_versions_choices_locks_and_splices_stay(mini: Mini, take: Take) -> None:
    """Versions, choices, locks and splices of a take's shots stay when shots are added."""
    remade(take, mini, 3, "keep", seed=9)
    spliced = lock_shot(Take.load(take.folder), 4, True)
    whole = latents(spliced)
    job = extended(mini, spliced)
    assert job.take is not None and job.take.shots[:5] == spliced.shots and len(job.take.shots) == 7
    assert all(same(latents(job.take)[:BLOCKS], whole))


def test_nothing_is_saved_by_appending(take: Take) -> None:
    """`append` saves nothing: the file of the take stays as it is."""
    before = (take.folder / "take.json").read_bytes()
    assert append(take, MORE).block_count() == BLOCKS
    assert (take.folder / "take.json").read_bytes() == before


@pytest.mark.parametrize("made", [BLOCKS, BLOCKS + 1, BLOCKS + 2])
def test_an_extension_that_was_stopped_goes_on_to_the_bit(mini: Mini, take: Take, made: int) -> None:
    """The job was stopped after that many blocks."""
    old = (take.folder / "take.json").read_bytes()
    expected = latents(extended(mini, take).take or take)
    (take.folder / "take.json").write_bytes(old)
    for number in ("006", "007"):
        shutil.rmtree(take.folder / "shots" / number)

    def stop() -> bool:
        return len(list(take.folder.rglob("block_*.safetensors"))) >= made

    stopped = Job(RenderSettings.resumed(take.folder), take=append(take, MORE), mini=mini, should_stop=stop)
    assert not stopped.run() and stopped.take is not None
    assert stopped.take.block_count() == made
    job, _ = resume(take, mini)
    assert all(same(latents(job.take or take), expected))


@pytest.mark.parametrize(
    "script",
    [
        "a fox",
        "a fox | a hare | a hawk",
        "Shot 1 (4s): a fox\nShot 2: a hare\n",
        "[0s-4s] a fox\n[4s-8s] a hare\n",
        "[0s] a fox\n[6s] a hare\n",
        "[0s] a fox\n[2s] a hare\n[3.5s-9s] a hawk\n",
        "Shot 1 (1s): a fox\nShot 2 (50f) continue: a hare\nShot 3 (3 blocks): a hawk\n",
    ],
)
@pytest.mark.parametrize("more", ["a bear", "Shot 1 (2 blocks) continue: a bear"])
def test_every_way_to_say_a_length_stays(script: str, more: str) -> None:
    """Lengths that were left to us or to the clock too, whatever comes behind them."""
    take = a_take(script)
    longer = append(take, more)
    old = len(take.plan.blocks)
    assert longer.plan.blocks[:old] == take.plan.blocks and len(longer.plan.blocks) > old
    assert ShotScript.parse(longer.script.format()) == longer.script


def test_the_clock_counts_from_the_films_start() -> None:
    """Clock times of added shots count from the film's start, and a start within the film is refused with its place."""
    for script in (
        "[0s-4s] a fox\n[4s-8s] a hare\n",
        "Shot 1 (4s): a fox\nShot 2: a hare\n",
        "[0s] a fox\n[4s] a hare\n",
    ):
        longer = append(a_take(script), "[8s-12s] a hawk\n[12s-16s] a bear")
        assert [block.shot for block in longer.plan.blocks] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    with pytest.raises(ScriptError, match=r"line 2, column 1: shot 3 starts at 4s, but shot 2 ends at 7\.88 s"):
        append(a_take("[0s-4s] a fox\n[4s-8s] a hare\n"), "\n[4s-8s] a hawk\n")


def test_names_and_style_hold_for_the_shots_behind() -> None:
    """The names and style of the film hold for added shots, and further names can be defined."""
    take = a_take("style: ink\nhero: a red fox\n{hero} runs\n")
    longer = append(take, "style: ink\nHero: a red fox\nfriend: {hero}'s owl\n\n{friend} meets {hero}\n")
    assert longer.script.names == (("hero", "a red fox"), ("friend", "{hero}'s owl"))
    assert longer.plan.blocks[-1].prompt == "a red fox's owl meets a red fox, ink"
    assert longer.shots[1].versions[0].text == "{friend} meets {hero}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nstyle: oil\na hare", "line 2, column 1: another style: the style of the film is 'ink'"),
        ("# two\nhero: a hare\n{hero} sits", "line 2, column 1: 'hero' is 'a red fox' in the film already"),
        ("a hare\n\n{nobody} sits", r"line 3, column 1: unknown name \{nobody\}"),
        ("a hare\nShot 2 (0.1s): a hawk", "line 2, column 1: shot 3 asks for 0.1 s"),
        ("friend: an owl\n", "line 1, column 1: no shots to add"),
        ("", "line 1, column 1: no shots to add"),
        ("a hare\n" * 1000, "line 1000, column 1: with these the film has 1,001 shots"),
    ],
)
def test_errors_point_into_the_added_text(text: str, message: str) -> None:
    """An error in added shots gives line and column of the added text."""
    take = a_take("style: ink\nhero: a red fox\n\n\n{hero} runs\n")
    with pytest.raises(ScriptError, match=message):
        append(take, text)


def test_a_style_where_the_film_has_none_is_refused() -> None:
    """A style for added shots is refused if the film has none."""
    with pytest.raises(ScriptError, match="another style: the film has no style"):
        append(a_take("a fox"), "style: oil\na hare")


def test_the_command_line_extends_a_take(capsys: pytest.CaptureFixture[str], mini: Mini, tmp_path: Path) -> None:
    """`longlive extend` adds shots to a take and keeps its blocks to the bit; a refusal leaves the take as it is."""
    mini.save(tmp_path / "mini", torch.float32)
    settings = replace(make_settings(tmp_path), model=str(tmp_path / "mini"))
    assert Job(settings).run()
    take, more = Take.load(tmp_path / "film.take"), tmp_path / "more.txt"
    whole = latents(take)
    more.write_text(MORE)
    assert main(["extend", str(take.folder), str(more)]) == 0
    printed = capsys.readouterr().out
    assert "reused 6 blocks, sampled 3, of 9" in printed
    assert "shot 6 continues shot 5; step across the seam" in printed
    longer = Take.load(take.folder)
    assert longer.complete and all(same(latents(longer)[:BLOCKS], whole))
    kept = (take.folder / "take.json").read_bytes()
    for words, text, message in (
        ([], "thing: the other\n{thing}\n", "line 1, column 1: 'thing' is 'the hero' in the film already"),
        (["--prompt", "the hero"], MORE, "leave it out for a take"),
        (["--seed", "8"], MORE, "seed was 0, now 8"),
    ):
        more.write_text(text)
        assert main(["extend", str(take.folder), str(more), *words]) == 2
        assert message in capsys.readouterr().err
    assert (take.folder / "take.json").read_bytes() == kept
