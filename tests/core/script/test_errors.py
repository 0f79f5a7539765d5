"""Every mistake in a script is an error with its line, its column and a remedy."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from longlive.longlive_core.script import ScriptError, ShotScript

LONG = "x" * 10_001

CASES = [
    ("", 1, 1, "the script has no shots"),
    (" \n\n", 1, 1, "the script has no shots"),
    ("# only\n# comments", 1, 1, "the script has no shots"),
    ("# x\n  fox: a fox", 2, 3, "'fox: a fox' is read as a definition"),
    ("a\nShot 2 (0s): b", 2, 9, "a shot of 0s has no length"),
    ("Shot 1 (-4s): a", 1, 9, "'-4s' is negative"),
    ("Shot 1 (1e9s): a", 1, 9, "'1e9s' is not a length"),
    ("Shot 1 (nan s): a", 1, 9, "'nan s' is not a length"),
    ("Shot 1 (99999999s): a", 1, 9, "'99999999s' is beyond the limit of 86400s (24 h)"),
    ("Shot 1 (99999999 blocks): a", 1, 9, "beyond the limit of 64800 blocks (24 h)"),
    ("Shot 1 (99999999999999999s): a", 1, 9, "too many digits"),
    (f"Shot 1 ({'9' * 5000}s): a", 1, 9, "99…' is not a length"),
    ("Shot 1 (4): a", 1, 9, "'4' has no unit"),
    ("Shot 1 (4x): a", 1, 9, "'4x' has the unknown unit 'x'"),
    ("Shot 1 (wide): a", 1, 9, "'wide' is not a length"),
    ("Shot 1 (4s, 5s): a", 1, 13, "a second length in one header"),
    ("Shot 1 (4s: a", 1, 8, "'(' is never closed"),
    ("[4s-9s: a", 1, 1, "'[' is never closed"),
    ("  [9s-4s]: a", 1, 4, "'9s-4s' ends before it starts"),
    ("[4s-96f]: a", 1, 2, "mixes seconds and video frames"),
    ("a | b {", 1, 7, "unbalanced brackets: '{' is never closed"),
    ("a (b]", 1, 5, "unbalanced brackets: ']' is never opened"),
    ("Shot 1:\n  a\n  b) c", 3, 4, "unbalanced brackets: ')' is never opened"),
    ("a {b {c}}", 1, 6, "a '{' inside a {name}"),
    ("hero: x\na {hero} | {villain}", 2, 12, "unknown name {villain}"),
    ("hero: x\na {hero} | {villain}", 2, 12, "known: {hero}"),
    ("a\nb @fade=3", 2, 3, "unknown directive '@fade': known directives: @seed=…"),
    ("a @seed", 1, 3, "the seed '' is not a whole number"),
    ("a @seed=-1", 1, 3, "the seed '-1' is not a whole number from 0 to 18446744073709551615"),
    ("a @seed=18446744073709551616", 1, 3, "the seed '18446744073709551616' is not"),
    ("a @seed=1 @seed=2", 1, 11, "a second @seed in one shot"),
    ("@seed=1\na", 1, 1, "a directive without a shot"),
    ("a: b @seed=1\nc", 1, 6, "'@seed=1' outside a shot"),
    ("a: b\nA: c\nd", 2, 1, "'A' is defined on line 1 already"),
    ("style: b\nstyle: c\nd", 2, 1, "'style' is defined on line 1 already"),
    ("style:\nd", 1, 1, "'style:' without a text"),
    ("a\nstyle: b", 2, 1, "a style below the first shot"),
    ("Shot 1 (4s):\n---\nb", 1, 1, "a shot without text"),
    ("a\nb\x07", 2, 2, "control character U+0007"),
    ("a\ud800", 1, 2, "control character U+D800"),
    (LONG, 1, 1, "a text of 10,001 characters"),
    (f"style: {LONG[1:]}\na", 2, 1, "style and names included; the limit is 10,000"),
    ("a\n" * 1_001, 1_001, 1, "shot 1,001; the limit is 1,000 shots"),
]


@pytest.mark.parametrize(("script", "line", "column", "message"), CASES, ids=[case[3][:40] for case in CASES])
def test_mistakes(script: str, line: int, column: int, message: str) -> None:
    """The error points at the mistake, says what it is, and carries a remedy."""
    with pytest.raises(ScriptError) as caught:
        ShotScript.parse(script)
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"line {line}, column {column}: ")
    assert caught.value.remedy


def test_names_cannot_explode() -> None:
    """Names that double each other stop at the limit instead of filling the memory."""
    lines = ["n0: " + "x" * 100, *(f"n{i}: {{n{i - 1}}}{{n{i - 1}}}" for i in range(1, 60)), "{n59}"]
    with pytest.raises(ScriptError, match=r"line 8, column 5: a text of .* the limit is 10,000"):
        ShotScript.parse("\n".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "shot" + " " * 200_000 + "x",
        "Shot 1 (4s)" + " " * 200_000 + "x",
        "[" + "1" * 200_000,
        "[1" + " " * 200_000 + "x",
        "Shot 1 (" + "1" * 200_000 + "s):",
        "a" * 200_000 + " " * 200_000,
        "[" * 200_000,
        "{a" * 100_000,
        "@seed " * 100_000,
        "(1s) " * 50_000,
        "| " * 100_000,
        "Shot 1:\n" + "a\n" * 90_000,
        "\n" * 200_000,
    ],
    ids=lambda script: script[:8].strip(),
)
def test_hostile_texts_cost_no_time(script: str) -> None:
    """Reading takes time in proportion to the text, whatever is in it."""
    begin = time.process_time()
    with suppress(ScriptError):
        ShotScript.parse(script)
    assert time.process_time() - begin < 20  # in proportion to the square it is minutes


def test_a_huge_text_is_refused_at_once() -> None:
    """50 MB of text are not read."""
    with pytest.raises(ScriptError, match="a script of 50,000,000 characters; the limit is"):
        ShotScript.parse("x" * 50_000_000)
