"""The reading of a script: notes and warnings with their places, and what became of every character."""

from __future__ import annotations

import pytest
from longlive.longlive_core.script import ScriptError, ShotScript
from longlive.longlive_core.script.append import append_shots


def remarks(text: str) -> list[str]:
    return ShotScript.parse(text).reading.lines()


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (
            "Shot 1: a\nSht 2: b",
            "warning: line 2, column 1: looks like a header (Sht 2) and is read as prompt: write Sh",
        ),
        (
            "Panle 3: a",
            "warning: line 1, column 1: looks like a header (Panle 3) and is read as prompt: write Panel 3:",
        ),
        ("# a\n# b\nc", "note: lines 1 to 2: left out: it is a comment"),
        ("a fox at [4s] runs", "warning: line 1, column 10: '4s' looks like a time and is read as prompt"),
        ("1. a fox", "warning: line 1, column 1: looks like a list mark and is read as prompt: leave the number out"),
        ("a\n  b ``` c", "warning: line 2, column 5: '```' is markup; it is kept as text"),
        ("a {x|y}", "warning: line 1, column 3: '{x|y}' is a wildcard, which means nothing here; it is kept as text"),
        ("a (x:1.2)", "warning: line 1, column 3: '(x:1.2)' is a weight, which means nothing to the model; it is kept"),
        ("a: b\nShot 1: c", "warning: line 1, column 1: 'a: …' is a named thing, but no shot uses {a}: write {a} in"),
        ("Title: a\nShot 1: c", "note: line 1, column 1: left out: it is no shot"),
        (
            "A story\n\nShot 1: c\nShot 2: d",
            "note: line 1, column 1: left out: it is no shot, because a shot 1 follows",
        ),
    ],
)
def test_what_is_not_read_as_it_looks_is_said(text: str, remark: str) -> None:
    """Each remark has its line, its column and what to write instead."""
    assert any(line.startswith(remark) for line in remarks(text)), remarks(text)


def test_a_plain_script_has_no_remarks() -> None:
    """What the grammar says is read without a word."""
    assert (
        remarks("style: ink\nhero: a fox\n\nShot 1 (4s): {hero} runs @seed=7\n---\n[4s-9s]: it stops\ncontinue: b")
        == []
    )


@pytest.mark.parametrize("length", ["(90s)", "(2:00)", "[90s]", "a fox (90s)"])
def test_a_long_length_without_a_header_is_asked_about(length: str) -> None:
    """It may be a length or words: the error says how to write either."""
    with pytest.raises(ScriptError) as caught:
        ShotScript.parse(f"{length} a party" if length[-1] in ")]" and length[0] in "([" else length)
    assert "Shot 1 (" in caught.value.remedy and "\\" in caught.value.remedy
    assert ShotScript.parse(f"Shot 1 ({length.strip('a fox()[]')}): a party").shots[0].duration is not None
    assert ShotScript.parse("\\(90s\\) a party").shots[0].prompt == "(90s) a party"


def test_every_character_is_accounted_for() -> None:
    """Text, marks and notes cover the text; blanks are in none of them."""
    text = "Here is it:\n\n**Shot 1 (4s):** a fox\n- **Camera:** pan\n"
    reading = ShotScript.parse(text).reading
    assert reading.unread(text) == []
    kinds = {(span.line, span.kind) for span in reading.spans}
    assert kinds == {(1, "note"), (3, "mark"), (3, "text"), (4, "mark"), (4, "text")}
    assert [line.text for line in reading.unread(text + "more")] == ["more"]


def test_shots_that_are_added_have_their_reading() -> None:
    """The reading of a longer script is that of the added text; a name that the film has is used by no added shot."""
    script = ShotScript.parse("hero: a fox\nShot 1: {hero}")
    longer = append_shots(script, "Sht 2: {hero} runs")
    assert str(longer.reading.warnings[0]).startswith("line 1, column 1: looks like a header (Sht 2)")
    assert [shot.prompt for shot in append_shots(script, "Narrator: it runs\na lake").shots[1:]] == [
        "Narrator: it runs",
        "a lake",
    ]


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0:00 - a\n0:04 - b", [("0s", None), ("4s", None)]),
        ("0s: a\n4s: b", [("0s", None), ("4s", None)]),
        ("4s: a\n3s: b", [(None, "4s"), (None, "3s")]),
        ("Shot 1, 0:00: a\nShot 2, 0:04: b", [("0s", None), ("4s", None)]),
        ("Shot 1, 0:05: a\nShot 2, 0:04: b", [(None, "5s"), (None, "4s")]),
    ],
)
def test_single_times_without_brackets(text: str, times: list[tuple[str | None, str | None]]) -> None:
    """They are starts if the first is zero, else lengths."""
    shots = ShotScript.parse(text).shots
    assert [(shot.start and str(shot.start), shot.duration and str(shot.duration)) for shot in shots] == times


def test_a_cell_of_a_table_is_said_or_read() -> None:
    """A title and a negative prompt are left out with a note; words in a column of times are text."""
    script = ShotScript.parse("Time,Title,Prompt,Negative\n4s,Snow,a fox,blurry\n0-4s,,it runs,\n")
    assert [shot.text for shot in script.shots] == ["a fox", "it runs"]
    assert [(note.line, note.message[:6]) for note in script.reading.notes[:2]] == [(2, "'Snow'"), (2, "'blurr")]
    assert {(span.line, span.column) for span in script.reading.spans if span.kind == "note"} == {(2, 4), (2, 15)}


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("Shot 1: a\nSht 2 (4s): b", "Shot 1: a\nShot 2 (4s): b"),
        ("Sht 2: b", "Shot 2: b"),
        ("Shot 1: a\nSht 2 - b", "Shot 1: a\nShot 2: b"),
        ("3. a fox", "a fox"),
        ("Shot 1: a Shot 2: b", "Shot 1: a \nShot 2: b"),
        ("a (fox:1.2) and **b** <lora:x:1> runs --ar 16:9", "a fox and b  runs "),
    ],
)
def test_a_fix_writes_what_the_warning_asks_for(text: str, mended: str) -> None:
    """After its fixes a script has no such warning any more."""
    script = text
    for _ in range(5):
        fixes = [warning.fix for warning in ShotScript.parse(script).reading.warnings if warning.fix]
        if not fixes:
            break
        script = fixes[0].apply(script)
    assert script == mended and ShotScript.parse(script).reading.warnings == ()


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("hero: a fox\nShot 1: {heroo} runs", "hero: a fox\nShot 1: {hero} runs"),
        ("Shot 1 (4): a", "Shot 1 (4s): a"),
        ("Shot 1: a (b", "Shot 1: a \\(b"),
    ],
)
def test_an_error_with_one_remedy_has_a_fix(text: str, mended: str) -> None:
    """The fix writes it, and the script is read."""
    with pytest.raises(ScriptError) as caught:
        ShotScript.parse(text)
    assert caught.value.fix is not None
    assert caught.value.fix.apply(text) == mended and ShotScript.parse(mended).shots
