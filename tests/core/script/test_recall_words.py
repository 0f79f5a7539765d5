"""@keep and @recall in a script: how they are read, written back, edited and planned, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from longlive.longlive_core.script import ScriptError, ShotScript
from longlive.longlive_core.script.append import append_shots
from longlive.longlive_core.script.edit import edit_script
from longlive.longlive_core.script.edits import Delete, Duplicate, Edit, Move, SetText, Split, Stretch
from longlive.longlive_core.script.from_plan import script_of
from longlive.longlive_core.script.recall import Kept
from longlive.longlive_core.script.storyboard import storyboard_plan

SCRIPT = """\
kitchen: a white kitchen
hero: a red fox
Shot 1 (3 blocks): {hero} runs @keep=hero@2
Shot 2 (1 block) @keep=kitchen: {kitchen}
Shot 3 (1 block): snow
Shot 4 (2 blocks) @recall=kitchen,hero: {hero} is back
"""


def recalled(text: str) -> list[tuple[int, ...]]:
    """What each block of a script recalls."""
    return [block.recalled for block in ShotScript.parse(text).plan().blocks]


def test_a_shot_recalls_the_blocks_that_earlier_shots_keep() -> None:
    """Every block of the shot does, in the order of the names: the first block of a shot, or one by its number."""
    assert recalled(SCRIPT) == [(), (), (), (), (), (3, 1), (3, 1)]
    shots = ShotScript.parse(SCRIPT).shots
    assert shots[0].keeps == (Kept("hero", 2),) and shots[1].keeps == (Kept("kitchen"),)
    assert shots[3].recalls == ("kitchen", "hero") and shots[3].prompt == "a red fox is back"


@pytest.mark.parametrize(
    "line",
    [
        "Shot 2 (1 block): dog @recall=a @seed=7",
        "Shot 2 (1 block) @recall=a @seed=7: dog",
        "Shot 2 (1 block): @seed=7 @recall=A dog",
        "Shot 2 (1 block)\n@recall=a\n@seed=7\ndog",
        "Shot 2 (1 block): dog\n@recall=a @seed=7",
        "Shot 2 (1 block)\uff1a dog @recall=a @seed=7",
    ],
)
def test_the_words_stand_anywhere_in_their_shot(line: str) -> None:
    """Before the colon, in the text and on lines of their own; names are the same in upper and lower case."""
    script = ShotScript.parse(f"Shot 1 (1 block) @keep=a: cat\n{line}\n")
    assert (script.shots[1].text, script.shots[1].seed) == ("dog", 7)
    assert [name.lower() for name in script.shots[1].recalls] == ["a"]
    assert [block.recalled for block in script.plan().blocks] == [(), (0,)] and not script.reading.warnings


def test_a_continuing_shot_has_words_in_its_header_too() -> None:
    shot = ShotScript.parse("Shot 1: cat @keep=a\nShot 2 (4s) continue @recall=a: dog").shots[1]
    assert (shot.text, shot.continues, shot.recalls) == ("dog", True, ("a",))


@pytest.mark.parametrize("auto", ["", "recall: auto\n"])
def test_what_is_written_is_read_back(auto: str) -> None:
    script = ShotScript.parse(auto + SCRIPT)
    assert script.auto_recall == bool(auto)
    assert ShotScript.parse(script.format()) == script and script.format() == ShotScript.parse(script.format()).format()


def test_names_in_a_text_recall_if_the_script_says_so() -> None:
    """What an earlier shot keeps, each block once; not what this shot or a later one keeps, nor what is only a name."""
    text = SCRIPT.replace(" @recall=kitchen,hero", "").replace("is back", "is back in {Kitchen}")
    assert recalled(text)[-1] == ()
    assert recalled("recall: auto\n" + text)[-1] == (1, 3)
    assert recalled("Recall: AUTO\n" + text)[:3] == [(), (), ()]
    both = text.replace("is back", "is back @recall=kitchen")
    assert recalled("recall: auto\n" + both)[-1] == (3, 1)


def test_recall_may_still_be_a_name_or_the_beginning_of_a_text() -> None:
    assert ShotScript.parse("recall: on\nShot 1: {recall}").shots[0].prompt == "on"
    assert len(ShotScript.parse("recall: the good old days\na dog").shots) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Shot 1: a\nShot 2: b @recall=kitchen",
            "shot 2 recalls 'kitchen', which no earlier shot keeps: add @keep=kit",
        ),
        ("Shot 1: a @keep=kitchn\nShot 2: b @recall=kitchen", "write @recall=kitchn, or add .*kept so far: kitchn"),
        ("Shot 1: a\nShot 2: b @recall=k\nShot 3: c @keep=k", "shot 2 recalls 'k'.*shot 3, which is later, keeps it"),
        ("Shot 1: a\nShot 2: b @recall=k @keep=k", "this shot itself keeps it"),
        ("Shot 1: a @recall=k", "the first shot has nothing to recall"),
        ("Shot 1: a @keep=k\nShot 2: b @keep=K", "line 2, column 11: shot 2 keeps 'K', which shot 1 keeps already"),
        ("Shot 1: a @keep=k\nShot 2: b @recall=k,K", "shot 2 recalls 'K' twice|shot 2 recalls 'k' twice"),
        ("Shot 1 (1 block): a @keep=k@2", "shot 1 keeps its block 2 as 'k', but it has 1 block: write @keep=k@1"),
        ("Shot 1: a @keep=k@0", "'0' is no number of a block"),
        ("Shot 1: a @keep=k@1@2", "'1@2' is no number of a block"),
        ("Shot 1: a @keep=k@1234567", "'1234567' is no number of a block"),
        ("Shot 1: a @keep=", "an empty name in '@keep='.*@keep=kitchen,hero@3"),
        ("Shot 1: a @keep", "an empty name in '@keep'"),
        ("Shot 1: a @keep=@2", "'' in '@keep=@2' is not a valid name"),
        ("Shot 1: a @keep=a, b", "an empty name in '@keep=a,'"),
        ("Shot 1: a @keep=a.", "'a.' in '@keep=a.' is not a valid name: a name has letters, digits"),
        ("Shot 1: a @keep=3a", "'3a' in"),
        ("Shot 1: a @keep=a\nShot 2: b @recall=a@2", "'a@2' in '@recall=a@2' is not a valid name"),
        ("Shot 1: a @keeps=a", "unknown directive '@keeps': known directives: @seed=…, @keep=… and @recall=…"),
        ("hero: fox @keep=a\nShot 1: {hero}", "'@keep=a' outside a shot"),
        ("@keep=a\nShot 1: b", "a directive without a shot"),
        ("recall: on\nShot 1: a", "'recall: on' is no setting: write recall: auto"),
        ("Shot 1: a\nrecall: auto\nShot 2: b", "line 2.*'recall: auto' below the first shot"),
    ],
)
def test_what_may_be_typed_wrong_is_told(text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        ShotScript.parse(text).plan()


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (SetText(4, "the fox"), "Shot 4 (2 blocks): the fox @recall=kitchen,hero"),
        (SetText(4, "the fox @recall=hero"), "Shot 4 (2 blocks): the fox @recall=hero"),
        (SetText(2, "a stove @keep=stove,kitchen"), "Shot 2 (1 block): a stove @keep=stove,kitchen"),
        (Split(1, 1), "Shot 2 (2 blocks) continue: {hero} runs @keep=hero"),
        (Split(4, 1), "Shot 5 (1 block) continue: {hero} is back @recall=kitchen,hero"),
        (Duplicate(2), "Shot 3 (1 block): {kitchen}"),
        (Move(4, 3), "Shot 3 (2 blocks): {hero} is back @recall=kitchen,hero"),
    ],
)
def test_an_edit_keeps_the_words(edit: Edit, line: str) -> None:
    """Words that are typed into a text replace those of the shot; a copy keeps nothing, as a name is kept once."""
    for auto in ("", "recall: auto\n"):
        edited = edit_script(auto + SCRIPT, edit)
        assert line in edited.text.splitlines() and edited.script.auto_recall == bool(auto)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Delete(2), "shot 3 recalls 'kitchen', which no earlier shot keeps"),
        (Move(4, 1), "shot 1 recalls 'kitchen'"),
        (Stretch(1, 1), "shot 1 keeps its block 2 as 'hero', but it has 1 block"),
        (SetText(4, "@recall=nobody x"), "recalls 'nobody'"),
    ],
)
def test_an_edit_that_breaks_a_recall_is_refused(edit: Edit, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        edit_script(SCRIPT, edit)


def test_appended_shots_recall_what_the_film_keeps() -> None:
    script = append_shots(ShotScript.parse(SCRIPT), "Shot 1 (1 block): more @recall=kitchen @keep=more")
    assert script.plan().blocks[-1].recalled == (3,)
    with pytest.raises(ScriptError, match="shot 5 recalls 'nobody'"):
        append_shots(script.parse(SCRIPT), "more @recall=nobody")
    with pytest.raises(ScriptError, match="'recall: auto', which the film to continue does not have"):
        append_shots(ShotScript.parse(SCRIPT), "recall: auto\nShot 1: more")
    longer = append_shots(ShotScript.parse("recall: auto\n" + SCRIPT), "recall: auto\nShot 1 (1 block): {kitchen}")
    assert longer.auto_recall and longer.plan().blocks[-1].recalled == (3,)


def test_a_plan_is_written_as_a_script_that_recalls_the_same() -> None:
    """Also behind another film, whose blocks come first."""
    plan = ShotScript.parse(SCRIPT).plan()
    assert script_of(plan).plan().blocks == plan.blocks
    both = plan.then(plan)
    assert both.blocks[-1].recalled == (7 + 3, 7 + 1)
    assert script_of(both).plan().blocks == both.blocks


def test_a_storyboard_recalls_first_blocks_and_says_what_it_cannot() -> None:
    """The first block of shot 2 is its second block; block 1 of the film is none of its blocks."""
    board = storyboard_plan(ShotScript.parse(SCRIPT).plan())
    assert [block.recalled for block in board.blocks] == [(), (), (), (1,)]
    assert board.notes[-1] == "shot 4 recalls block 1 of the film, which the storyboard does not have"


def test_the_plan_says_what_is_recalled() -> None:
    assert "2 blocks, recalls blocks 1, 3: " in ShotScript.parse(SCRIPT).plan().text()
    plain = ShotScript.parse(SCRIPT.replace("@recall=kitchen,hero", "")).plan()
    assert "recall" not in plain.text() and plain.blocks == tuple(
        replace(block, recalled=()) for block in ShotScript.parse(SCRIPT).plan().blocks
    )
