"""Edits of a script: the canonical text after each, what it keeps, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from longlive.longlive_core.script import ScriptError, ShotScript
from longlive.longlive_core.script.edit import EditedScript, edit_script
from longlive.longlive_core.script.edits import read_edit

SCRIPT = """# A film about a fox
style: ink
hero: a red fox

# the beginning
Shot 1 (4s): {hero} wakes @seed=7
Shot 2 (8 blocks) continue: {hero} runs
# the end
Shot 3: night
# over
"""


def edited(script: str, /, **edit: Any) -> EditedScript:  # noqa: ANN401
    return edit_script(script, read_edit(edit))


def body(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith(("Shot", "#"))]


@pytest.mark.parametrize(
    ("edit", "lines"),
    [
        (
            {"kind": "move", "shot": 3, "to": 1},
            [
                "# A film about a fox",
                "# the end",
                "Shot 1: night",
                "# the beginning",
                "Shot 2 (4s): {hero} wakes @seed=7",
                "Shot 3 (8 blocks) continue: {hero} runs",
                "# over",
            ],
        ),
        ({"kind": "stretch", "shot": 1, "blocks": 5}, "Shot 1 (6.5s): {hero} wakes @seed=7"),
        ({"kind": "stretch", "shot": 2, "blocks": 1}, "Shot 2 (1 block) continue: {hero} runs"),
        ({"kind": "stretch", "shot": 3, "blocks": 6}, "Shot 3 (8s): night"),
        ({"kind": "split", "shot": 2, "blocks": 3}, "Shot 3 (5 blocks) continue: {hero} runs"),
        ({"kind": "duplicate", "shot": 1}, "Shot 2 (4s): {hero} wakes @seed=7"),
        (
            {"kind": "delete", "shot": 3},
            [
                "# A film about a fox",
                "# the beginning",
                "Shot 1 (4s): {hero} wakes @seed=7",
                "Shot 2 (8 blocks) continue: {hero} runs",
                "# the end",
                "# over",
            ],
        ),
        ({"kind": "insert", "shot": 4, "text": "(2s) a moon @seed=3"}, "Shot 4 (2s): a moon @seed=3"),
        ({"kind": "cut", "shot": 2, "cut": True}, "Shot 2 (8 blocks): {hero} runs"),
        ({"kind": "cut", "shot": 3, "cut": False}, "Shot 3 continue: night"),
        ({"kind": "seed", "shot": 3, "seed": 5}, "Shot 3: night @seed=5"),
        ({"kind": "seed", "shot": 1, "seed": None}, "Shot 1 (4s): {hero} wakes"),
        ({"kind": "text", "shot": 3, "text": "a | b"}, "Shot 3: a \\| b"),
        ({"kind": "text", "shot": 1, "text": "{hero}\n sleeps @seed=9"}, "Shot 1 (4s): {hero} sleeps @seed=9"),
    ],
)
def test_an_edit_changes_what_it_says_and_nothing_else(edit: dict[str, Any], lines: list[str] | str) -> None:
    """The other lines and the comments stay, and parsing the text gives the script of the result."""
    result = edited(SCRIPT, **edit)
    assert lines == body(result.text) if isinstance(lines, list) else lines in body(result.text)
    assert {line for line in SCRIPT.split("\n") if line.startswith("#")} <= set(body(result.text))
    assert ShotScript.parse(result.text) == result.script
    assert result.notes == ()


def test_style_and_names_are_edited() -> None:
    """An empty text removes one; a new name is defined behind the others."""
    text = edited(SCRIPT, kind="style", text="oil").text
    assert "style: oil\nhero: a red fox\n" in text
    text = edited(edited(text, kind="name", name="lake", text="a lake").text, kind="style", text="").text
    assert "style" not in text and "hero: a red fox\nlake: a lake\n" in text
    assert "lake" not in edited(text, kind="name", name="Lake", text="").text
    assert "hero: a blue fox" in edited(text, kind="name", name="HERO", text="a blue fox").text


@pytest.mark.parametrize(
    ("edit", "what", "remedy"),
    [
        ({"kind": "delete", "shot": 4}, "no shot 4", "choose"),
        ({"kind": "name", "name": "hero", "text": ""}, "unknown name {hero}", "define it"),
        ({"kind": "name", "name": "a b", "text": "c"}, "would", ""),
        ({"kind": "cut", "shot": 1, "cut": False}, "starts the film", "later"),
        ({"kind": "split", "shot": 2, "blocks": 8}, "cannot be split", "earlier"),
        ({"kind": "text", "shot": 2, "text": ""}, "without text", "write"),
        ({"kind": "insert", "shot": 9, "text": "a"}, "no place 9", "choose"),
        ({"kind": "stretch", "shot": 2, "blocks": 64_800}, "24 h", ""),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(edit: dict[str, Any], what: str, remedy: str) -> None:
    """No edit makes a text that is read as something else."""
    with pytest.raises(ScriptError) as caught:
        edited(SCRIPT, **edit)
    assert what in caught.value.what and remedy in caught.value.remedy


def test_the_last_shot_stays() -> None:
    """A script has one shot at least."""
    with pytest.raises(ScriptError, match="needs one shot"):
        edited("a fox", kind="delete", shot=1)


@pytest.mark.parametrize(
    "edit",
    [
        {"kind": "jump"},
        {"kind": "move", "shot": 1},
        {"kind": "move", "shot": "1", "to": 2},
        {"kind": "move", "shot": True, "to": 2},
        {"kind": "delete", "shot": 1, "to": 2},
        {"kind": "stretch", "shot": 1, "blocks": 0},
        {"kind": "seed", "shot": 1, "seed": -1},
        {"kind": "cut", "shot": 1, "cut": 1},
    ],
)
def test_a_malformed_edit_is_refused(edit: dict[str, Any]) -> None:
    """Values of another type, missing ones and more than there are raise ValueError."""
    with pytest.raises(ValueError, match="edit"):
        read_edit(edit)


def test_times_of_the_film_become_lengths_that_last_as_long() -> None:
    """Moving shots with start times keeps the blocks of each, and a note says so."""
    text = "[0s-5s]: a\n[5s-9s]: b\n[9s]: c\n[20s-23s]: d\n"
    before = _blocks(ShotScript.parse(text))
    result = edited(text, kind="move", shot=4, to=3)
    assert _blocks(result.script) == [before[0], before[1], before[3], before[2]]
    assert all(shot.start is None for shot in result.script.shots) and "lengths" in result.notes[0]


def test_a_stretch_is_planned_as_asked_in_every_unit() -> None:
    """The length written has exactly the blocks asked for, at any frame rate."""
    for fps in (8.0, 12.5, 24.0, 60.0):
        for unit in ("4s", "96f", "3 blocks"):
            text = f"Shot 1 ({unit}): a\nShot 2 ({unit}): b\n"
            for shot in (1, 2):
                for blocks in range(1, 20):
                    done = edit_script(text, read_edit({"kind": "stretch", "shot": shot, "blocks": blocks}), fps)
                    plan = done.script.plan(fps)
                    assert sum(block.shot == shot - 1 for block in plan.blocks) == blocks, (fps, unit, shot, done.text)


def test_what_was_left_out_is_kept_as_a_comment() -> None:
    """Remarks of a chat model and negative prompts do not vanish when the text becomes canonical."""
    text = "Here is your list:\n\n**Shot 1** (4s): a\nNegative prompt: blur\n**Shot 2** (4s): b\n"
    assert body(edited(text, kind="seed", shot=2, seed=1).text) == [
        "# Here is your list:",
        "Shot 1 (4s): a",
        "# Negative prompt: blur",
        "Shot 2 (4s): b @seed=1",
    ]


def test_a_comment_that_would_become_a_shot_is_left_out_and_noted() -> None:
    """A heading is a comment or a shot by what is around it; canonical text cannot keep the first kind."""
    text = "Scene 1: Intro\nShot 1: a\nShot 2: b\nScene 2: Out\nShot 1: c\n"
    result = edited(text, kind="duplicate", shot=1)
    assert len(result.script.shots) == 4 and ShotScript.parse(result.text) == result.script
    assert ("Intro" in result.text) != any("Intro" in note for note in result.notes)


def _blocks(script: ShotScript) -> list[int]:
    blocks = script.plan().blocks
    return [sum(block.shot == shot for block in blocks) for shot in range(len(script.shots))]
