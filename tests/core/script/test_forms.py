"""What people bring is read as they meant it, or a line says what was not."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from longlive.longlive_core.script import ScriptError, ShotScript
from longlive.longlive_core.script.words import FOLD, LABELS, UNITS

from .damage import damaged

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMS: list[dict[str, Any]] = [
    form
    for path in sorted((Path(__file__).parent / "forms").glob("*.toml"))
    for form in tomllib.loads(path.read_text("utf-8"))["form"]
]
# What may stand in the marks of a line besides the words of the tables.
STRUCTURE = frozenset(
    word
    for line in """\
continue to until from for bis of von de no nr x text json about approx ca style seed at align 번째 目
one two three four five six seven eight nine ten 个 個 第
fade in out cut back black smash match jump hard quick flash dissolve wipe iris
""".splitlines()
    for word in line.split()
)
CJK = "\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"
WORDS = re.compile(rf"[^\W\d_{CJK}]+|[{CJK}]+")


@cache
def vocabulary() -> set[str]:
    """All words that make a header, a unit or a label."""
    from longlive.longlive_core.script import words

    from_image = (words.IMAGES, words.VIDEO, words.PROMPT)
    tables = (words.NUMBERED, words.CJK, words.ORDINAL, words.NTH, words.ALONE, *from_image, *LABELS, *UNITS)
    return STRUCTURE | {word.lower() for table in tables for word in WORDS.findall(table)}


def swallowed(script: ShotScript, text: str) -> list[str]:
    """Words that are neither in a prompt, nor in a definition's name, nor noted, nor words of structure."""
    known = vocabulary() | {word.lower() for name, _ in script.names for word in WORDS.findall(name)}
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found: list[str] = []
    for span in script.reading.spans:
        line = lines[span.line - 1]
        if span.kind == "mark" and not (is_json(lines) or is_head(line) or re.match(r"[\s>]*(```|~~~)", line)):
            marked = line[span.column - 1 : span.end - 1].translate(FOLD).lower()
            found += [word for word in WORDS.findall(marked) if not is_structure(word, known)]
    return found


def is_structure(word: str, known: set[str]) -> bool:
    """Whether a run of letters is of structure: a word, a plural, a letter, a numeral, CJK words in a row."""
    if word in known:
        return True
    word = re.sub("[①-⑳一二三四五六七八九十第个個至到]", "", word)
    if re.match(f"[{CJK}]", word):
        return not re.sub(
            "|".join(sorted((w for w in known if re.match(f"[{CJK}]", w)), key=len, reverse=True)), "", word
        )
    return len(word) < 2 or word in known or word.removesuffix("s") in known or re.fullmatch("[ivx]+", word) is not None


def is_json(lines: list[str]) -> bool:
    return any(re.match(r'\s*[\[{]?\s*["{\[]', line) and '"' in line for line in lines)


def is_head(line: str) -> bool:
    """Whether a line is the head of a table."""
    return len(re.findall(r"[|\t,;]", line)) > 1 and any(word in line.lower() for word in ("prompt", "visual", "text"))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["name"])
def test_what_people_bring(form: dict[str, Any]) -> None:
    """The shots are right, a note or a warning names every line that it must, and nothing is swallowed."""
    text, right = form["text"], form["right"].strip()
    if right.startswith("error: "):
        with pytest.raises(ScriptError, match=re.escape(right.removeprefix("error: "))) as caught:
            ShotScript.parse(text)
        assert [caught.value.line] == form["noted"] and caught.value.remedy
        return
    script = ShotScript.parse(text)
    assert script.format().strip() == right
    reading = script.reading
    assert set(form["noted"]) <= {line for note in reading.remarks for line in range(note.line, note.end_line + 1)}
    assert reading.shots == script.shots
    assert reading.unread(text) == [] and swallowed(script, text) == []


def check(text: str) -> bool:
    """Whether a text is a script; if so, all of it is accounted for, and its canonical form reads the same."""
    try:
        script = ShotScript.parse(text)
    except ScriptError:
        return False
    assert script.reading.unread(text) == []
    assert swallowed(script, text) == []
    canonical = script.format()
    again = ShotScript.parse(canonical)
    assert (again, again.format()) == (script, canonical)
    return True


def test_damaged_scripts_lose_nothing() -> None:
    """Mixed and damaged, they raise nothing but ScriptError, every character is accounted for, canonical text stays."""
    samples = [form["text"] for form in FORMS]
    parsed = sum(check(text) for text in damaged(samples, 600, seed=1))
    assert parsed > 200, "the fuzz must reach scripts as well"
