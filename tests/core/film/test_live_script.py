"""A script that changes while its film is sampled: what may change, from when on, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.live_script import LiveScript, TooLateError
from longlive.longlive_core.film.sampler_settings import OnStep, ShouldStop
from longlive.longlive_core.sampling.generation import Generation, KnownLatents
from longlive.longlive_core.script import BlockPlan, ScriptError, ShotScript
from longlive.longlive_core.script.cast import CastEntry
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.live_versions import with_live_script

from ..conftest import Tiny
from ..takes import stored_film, take_film

SCRIPT = """\
hero: a red ring
Shot 1 (2 blocks): {hero}
Shot 2 (1 block): it waits
Shot 3 (1 block) continue: it turns @seed=4
"""


def live(text: str = SCRIPT) -> LiveScript:
    script = ShotScript.parse(text)
    return LiveScript(script, script.plan())


def prompts(film: LiveScript, shot: int) -> list[str]:
    return [block.prompt for block in film.begin(shot).blocks]


def test_a_change_holds_from_the_next_shot_on() -> None:
    """A changed script is in the plan of the next shot to begin, and the blocks before it stay as they were."""
    film = live()
    before = prompts(film, 0)
    assert film.change(SCRIPT.replace("it waits", "it runs"), version=0) == film.version == 1
    assert prompts(film, 1) == [*before[:2], "The scene transitions. it runs", "it turns"]
    assert film.script.shots[1].text == "it runs" and film.begun == 2


def test_a_shot_that_has_begun_stays() -> None:
    """The text, names and seed of a shot that has begun cannot change; those of a later shot can."""
    film = live()
    film.begin(1)
    for changed in (
        SCRIPT.replace("it waits", "it runs"),
        SCRIPT.replace("a red ring", "a blue ring"),
        SCRIPT.replace("it waits", "it waits @seed=1"),
    ):
        with pytest.raises(TooLateError, match=r"shot \d has begun: change shots from 3 on"):
            film.change(changed)
    assert film.change(SCRIPT.replace("it turns @seed=4", "{hero} @seed=5")) == 1
    assert film.begin(2).blocks[-1].seed == 5 and prompts(film, 2)[-1] == "a red ring"


def test_two_writers_do_not_overwrite_each_other() -> None:
    """A change of an older version of the script is refused, and the newer script stays."""
    film = live()
    film.change(SCRIPT.replace("it waits", "it runs"), version=0)
    with pytest.raises(TooLateError, match="at version 1, not 0: read it again"):
        film.change(SCRIPT, version=0)
    assert film.script.shots[1].text == "it runs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SCRIPT + "Shot 4 (1 block): more\n", "has 3 shots, this script 4"),
        (SCRIPT.replace("Shot 2 (1 block)", "Shot 2 (2 blocks)"), "shot 2 has another length .* \\(1 block\\)"),
        (SCRIPT.replace("Shot 3 (1 block)", "Shot 3 (2 blocks)"), "shot 3 has another length"),
        (SCRIPT.replace("Shot 1 (2 blocks)", "Shot 1 (1 block)"), "shot 1 has another length .* \\(2 blocks\\)"),
    ],
)
def test_lengths_stay(text: str, message: str) -> None:
    """The number of shots and their lengths cannot change while a film is sampled, and a refusal changes nothing."""
    film = live()
    with pytest.raises(ValueError, match=message):
        film.change(text)
    assert film.version == 0 and film.script == ShotScript.parse(SCRIPT)


def test_a_shot_without_a_length_keeps_its_own() -> None:
    """A shot without a length in the changed script keeps the length that it has in the plan."""
    film = live()
    film.change("a red ring\nit runs\nShot 3 continue: it turns @seed=4\n")
    assert [block.shot for block in film.begin(0).blocks] == [0, 0, 1, 2] and film.script.shots[1].duration is None


def test_what_is_no_script_changes_nothing() -> None:
    """A text with a script error is refused, and the script keeps its version."""
    film = live()
    with pytest.raises(ScriptError):
        film.change("Shot 1 (2 blocks): {nobody}")
    assert film.version == 0


@pytest.mark.parametrize("cut", [True, False])
def test_a_film_that_goes_on_counts_its_own_shots(cut: bool) -> None:
    """Behind another film's two shots the script's first is the whole film's third, and keeps its cut."""
    script, earlier = ShotScript.parse(SCRIPT), ShotScript.parse("A\nB\n").plan()
    plan = earlier.then(script.plan(), cut)
    film = LiveScript(script, plan)
    assert film.begin(1) == plan and film.begun == 0
    film.begin(2)
    assert film.begun == 1
    film.change(SCRIPT.replace("it waits", "it runs"))
    blocks = film.begin(3).blocks
    assert [block.cut for block in blocks] == [block.cut for block in plan.blocks]
    assert [block.prompt for block in blocks].count("The scene transitions. it runs") == 1
    assert blocks[: len(earlier.blocks) + 2] == plan.blocks[: len(earlier.blocks) + 2]


def test_a_take_says_what_was_used(tiny: Tiny, tmp_path: Path) -> None:
    """A shot that was changed while the film was sampled is a new version; a loaded take has the whole film."""
    text = "Shot 1 (1 block): A\nShot 2 (1 block): B\nShot 3 (1 block): C\n"
    script = ShotScript.parse(text)
    plan = script.plan(block_frames=tiny.block_frames)
    changing = LiveScript(script, plan)

    def begin(
        plan: BlockPlan, known: KnownLatents, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        return tiny.generate("", plan=plan, known=known, on_step=on_step, should_stop=should_stop)

    settings = {"fps": 24.0, "block_frames": tiny.block_frames}
    take = Take.new(tmp_path / "film.take", script, settings, {})
    take.save()
    film = stored_film(Film(plan, begin, live=changing), take, changing)
    run = film.run()
    blocks = [next(run)]
    changing.change(text.replace(": B", ": D"))
    blocks += run
    kept = Take.load(take.folder)
    assert [[version.text for version in shot.versions] for shot in kept.shots] == [["A"], ["B", "D"], ["C", "C"]]
    assert [shot.versions[shot.chosen].made for shot in kept.shots] == ["render", "live", "live"]
    assert kept.plan.blocks == film.plan.blocks and kept.complete
    again = take_film(kept, begin)
    assert not again.needs_model
    for one, other in zip(again.run(), blocks, strict=True):
        assert torch.equal(one.latents, other.latents)


def test_names_of_the_new_script_are_kept_in_full(tmp_path: Path) -> None:
    """A take whose script does not know a name has the shot's whole text."""
    text = "Shot 1 (1 block): A\nShot 2 (1 block): B\n"
    script = ShotScript.parse(text)
    take = Take.new(tmp_path / "film.take", script, {"fps": 24.0, "block_frames": 8}, {})
    take.save()
    changing = LiveScript(script, script.plan())
    changing.change("style: in ink\nfox: a red fox\n" + text.replace(": B", ": {fox}").replace(": A", ": A"))
    plan = changing.begin(0)
    changed = with_live_script(take, plan, changing.script)
    assert changed.plan.blocks == plan.blocks and changed.script.shots[1].prompt == "a red fox, in ink"


NAMED = "hero: a red ring\nShot 1 (1 block): {hero}\nShot 2 (1 block): {hero} runs\nShot 3 (1 block): it waits\n"


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (lambda text: "fox: a red fox\n" + text.replace("it waits", "{fox}"), ["hero", "fox"]),
        (lambda text: text.replace("a red ring", "a blue ring").replace("{hero}\n", "a red ring\n"), []),
        (lambda text: "style: in ink\n" + text, []),
    ],
    ids=["a new name", "another definition", "a style"],
)
def test_earlier_versions_keep_their_names(tmp_path: Path, edit: Callable[[str], str], names: list[str]) -> None:
    """A live change that needs other names or another style leaves the text of every earlier version as it was read."""
    script = ShotScript.parse(NAMED)
    take = Take.new(tmp_path / "film.take", script, {"fps": 24.0, "block_frames": 8}, {})
    before = [block.prompt for block in take.plan.blocks]
    changing = LiveScript(script, script.plan())
    changing.change(edit(NAMED))
    plan = changing.begin(0)
    changed = with_live_script(take, plan, changing.script)
    changed.save()
    loaded = Take.load(take.folder)
    assert loaded.plan.blocks == plan.blocks and [name for name, _ in loaded.script.names] == names
    assert [block.prompt for block in loaded.as_begun.plan.blocks] == before


def test_the_cast_files_of_a_film_stay() -> None:
    """What shots recall by number would otherwise be another file; the film's own way of reading knows given ones."""
    given, text = (
        (CastEntry("hall", "x"),),
        "cast: room.cast.safetensors\nShot 1 (1 block): a\nShot 2 (1 block) @recall=hall: b",
    )
    script = ShotScript.parse(text, given=given)
    film = LiveScript(script, script.plan(), parse=partial(ShotScript.parse, given=given))
    with pytest.raises(ValueError, match="cast files of a film cannot change while it is made"):
        film.change(text.replace("room", "other"))
    assert film.change(text.replace("@recall=hall: b", "@recall=room: c")) == 1
    assert film.begin(1).blocks[1].recalled == (-2,)
