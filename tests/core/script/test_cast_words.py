"""`cast:` in a script: how it is read with and without the files, written back, edited and planned, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from longlive.longlive_core.script import ScriptError, ShotScript
from longlive.longlive_core.script.append import append_shots
from longlive.longlive_core.script.cast import CastEntry
from longlive.longlive_core.script.edit import edit_script
from longlive.longlive_core.script.edits import Move, SetText
from longlive.longlive_core.script.from_plan import script_of
from longlive.longlive_core.script.storyboard import storyboard_plan

SHOTS = "Shot 1 (1 block) @recall=hall: snow @keep=hero\nShot 2 (2 blocks) @recall=Kitchen,hero: rain\nShot 3: fog\n"
SCRIPT = "cast: kitchen.cast.safetensors, hall=rooms/b.safetensors\n" + SHOTS


def recalled(text: str) -> list[tuple[int, ...]]:
    return [block.recalled for block in ShotScript.parse(text).plan().blocks]


def test_every_shot_can_recall_what_a_cast_file_has() -> None:
    """The first one, too; -1 is the first file. Without the files their names are those of the paths."""
    script = ShotScript.parse(SCRIPT)
    assert script.cast == (CastEntry("kitchen", "kitchen.cast.safetensors"), CastEntry("hall", "rooms/b.safetensors"))
    assert recalled(SCRIPT)[:4] == [(-2,), (-1, 0), (-1, 0), ()]
    assert "recalls cast file 2:" in script.plan().text() and "recalls block 0, recalls cast file 1" in (
        script.plan().text()
    )


def test_several_lines_are_one_list_and_the_text_is_written_back() -> None:
    """With the names, so that it is read alike without the files; edits keep it."""
    two = ShotScript.parse("cast: kitchen.cast.safetensors\nstyle: ink\nCast: hall=rooms/b.safetensors\n" + SHOTS)
    assert two.cast == ShotScript.parse(SCRIPT).cast
    assert "cast: kitchen=kitchen.cast.safetensors, hall=rooms/b.safetensors\n" in two.format()
    assert ShotScript.parse(two.format()) == two
    for edit in (Move(3, 1), SetText(1, "wind")):
        assert edit_script(SCRIPT, edit).script.cast == two.cast


def test_auto_recalls_a_cast_whose_name_is_in_curly_brackets() -> None:
    text = "recall: auto\ncast: kitchen.cast.safetensors\nkitchen: a kitchen\nShot 1: {kitchen}\nShot 2: snow\n"
    assert recalled(text) == [(-1,)] * 3 + [()] * 3


@pytest.mark.parametrize(
    "text",
    [
        "cast: an old woman and a.safetensors\nShot 1: {cast} cook\n",
        "cast: an old woman, a man\nShot 1: {cast} cook\n",
        "Shot 1: snow\ncast: kitchen.cast.safetensors\n",
    ],
)
def test_other_lines_are_what_they_were(text: str) -> None:
    """A name {cast}, text without files, and lines below the first shot."""
    assert ShotScript.parse(text).cast == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SCRIPT.replace("@keep=hero", "@keep=Hall"), r"line 2.*shot 1 keeps 'Hall', which rooms/b.safetensors has"),
        (SCRIPT.replace("hall=", "kitchen="), r"line 1.*'kitchen' is the name of kitchen.cast.safetensors and of"),
        (
            SCRIPT.replace("kitchen.cast", "1st.cast"),
            r"line 1.*'1st', the name of .* is not a valid name.*cast: kitchen=1st",
        ),
        (SCRIPT.replace("@recall=hall", "@recall=hell"), r"shot 1 recalls 'hell'.*write @recall=hall"),
    ],
)
def test_what_is_wrong_is_refused(text: str, error: str) -> None:
    """A name that a shot or another file has, one that is none, and one that nothing has, with line and remedy."""
    with pytest.raises(ScriptError, match=error):
        ShotScript.parse(text)


def test_a_script_in_a_file_needs_its_cast_files(tmp_path: Path) -> None:
    """A missing file, and one that is something else, are errors at the line of the file."""
    (tmp_path / "film.txt").write_text("\n" + SCRIPT)
    with pytest.raises(ScriptError, match=r"line 2, .*cast file kitchen.cast.safetensors does not exist"):
        ShotScript.read(tmp_path / "film.txt")
    (tmp_path / "kitchen.cast.safetensors").write_text("what")
    with pytest.raises(ScriptError, match=r"line 2, .*kitchen.cast.safetensors is damaged or no cast file"):
        ShotScript.read(tmp_path / "film.txt")
    (tmp_path / "film.txt").write_text(f"cast: {'k' * 300}.cast.safetensors\n{SHOTS}")
    with pytest.raises(ScriptError, match=r"line 1, .*kkk.cast.safetensors does not exist"):
        ShotScript.read(tmp_path / "film.txt")


def test_a_storyboard_and_a_longer_film_recall_the_same_files() -> None:
    """Shots that are added recall the film's cast; they bring none of their own."""
    script = ShotScript.parse(SCRIPT)
    assert [block.recalled for block in storyboard_plan(script.plan()).blocks] == [(-2,), (-1, 0), ()]
    longer = append_shots(script, "cast: kitchen.cast.safetensors\nShot 4 (1 block) @recall=kitchen: hail\n")
    assert longer.plan().blocks[-1].recalled == (-1,) and longer.cast == script.cast
    with pytest.raises(ScriptError, match="which the film to continue does not have"):
        append_shots(script, "cast: c.safetensors\nhail\n")
    plan = script.plan()
    assert plan.then(plan).blocks[7].recalled == (-1, 6)


def test_a_script_can_have_files_that_it_does_not_name() -> None:
    """They come first, an edit does not write them into the text, and a script of the plan names all."""
    given = (CastEntry("hall", "given.safetensors"),)
    text = "cast: kitchen.cast.safetensors\n" + SHOTS
    script = ShotScript.parse(text, given=given)
    assert [file.name for file in script.cast] == ["hall", "kitchen"]
    assert [block.recalled for block in script.plan().blocks][:2] == [(-1,), (-2, 0)]
    for edit in (Move(3, 1), SetText(1, "wind")):
        edited = edit_script(text, edit, given=given)
        assert edited.script.cast == script.cast and "given" not in edited.text and "hall=" not in edited.text
    with pytest.raises(ScriptError, match=r"'hall' is the name of given.safetensors and of b"):
        ShotScript.parse("cast: hall=b.safetensors\n" + SHOTS, given=given)
    plan = script.plan()
    assert script_of(plan, script.cast).plan().blocks == plan.blocks
    with pytest.raises(ValueError, match="recalls cast files that its blocks do not name"):
        script_of(plan, script.cast[:1])
