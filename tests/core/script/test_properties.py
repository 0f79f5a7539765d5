"""ShotScript under random input: format and parse are inverse, and nothing but ScriptError ever comes out."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from longlive.longlive_core.script import ScriptError, ShotScript

SEEDS = (
    "style: hand-painted watercolour, soft light\nhero: a red fox\n\nShot 1 (4s): {hero} trots. @seed=7\n---\n"
    "[4s-9s]: {hero} stops at a lake, wide shot\nShot 3 (8 blocks) continue: {hero} looks up\na plain line\n",
    "[0s: a fox] @seed=3\n[5s-10s: a (red|blue) lake]\n[0:12] a bear | a cat (1.2) | [0:20 to 0:30, continue] a dog\n",
    "# c\nScene 1 -\n  the 1st\n  line\nScene 2 [9f]:\ncontinue: walks on \\{ \\| \\@home\n***\n(96f) a [b]\n@seed=1\n",
)
SCRAPS = [
    *("Shot ", "shot 2", "Scene 3:", "continue", "continue:", "style:", "hero:", "{hero}", "@seed=7", "@seed=", "@x=1"),
    *("---", "|", "(4s)", "[4s-9s]", "[4s:", "(8 blocks)", "[0s-", "4s", "96f", "3 blocks", "1:30", "-", "–", "to"),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "\\",
        "#",
        ":",
        "\uff1a",
        "@",
        "=",
        ",",
        ".",
        "\n",
        "\n\n",
        "\r\n",
        "  ",
        "\t",
        " ",
    ),
    *(
        "a fox",
        "İ",
        "\u017f",
        "ß",
        "é",
        "漢字",
        "🦊",
        "\u2028",
        "\xa0",
        "\ufeff",
        "\x00",
        "\x85",
        "\ud800",
        "٣s",
        "1e9s",
    ),
]

scraps = st.lists(st.one_of(st.sampled_from(SCRAPS), st.text(max_size=3)), max_size=25).map("".join)
words = st.sampled_from(
    ["a fox", "runs", "{hero}", "{ Hero }", "\\|", "\\{", "(x|y)", "#3", "Shot 2:", "@ 5", "\\", "- b"]
)
prompts = st.lists(words, min_size=1, max_size=6).map(" ".join)
values = st.decimals(min_value="0.001", max_value="1000", places=3).map(str)
lengths = st.tuples(values, st.sampled_from(["s", "f", " blocks", " sec", " frames"])).map("".join)
ranges = st.tuples(st.integers(0, 99), st.integers(1, 99), st.sampled_from(["s", "f", " blocks"])).map(
    lambda t: f"{t[0]}-{t[0] + t[1]}{t[2]}"
)
times = st.one_of(st.just(""), lengths.map("({})".format), ranges.map("[{}]".format), lengths.map("[{}]".format))
seeds = st.one_of(st.just(""), st.integers(0, 2**64 - 1).map(" @seed={}".format))
shots = st.builds("Shot 1 {}{}: {}{}".format, times, st.sampled_from(["", " continue"]), prompts, seeds)
scripts = st.lists(shots, min_size=1, max_size=6).map(lambda lines: "\n".join(["style: s {hero}", "hero: a b", *lines]))


def assert_round_trip(text: str) -> bool:
    """Whether `text` is a script; if so, its canonical form parses to the same script and is its own canonical form."""
    try:
        script = ShotScript.parse(text)
    except ScriptError:
        return False
    canonical = script.format()
    again = ShotScript.parse(canonical)
    assert again == script
    assert again.format() == canonical
    try:
        script.plan()
    except ScriptError as error:
        assert error.remedy
    return True


@given(scripts)
@settings(deadline=None)
def test_format_is_the_inverse_of_parse(text: str) -> None:
    """parse ∘ format is the identity on every script."""
    assert assert_round_trip(text)


@given(scraps)
@settings(max_examples=500, deadline=None)
def test_scraps_of_grammar(text: str) -> None:
    """Whatever parses from scraps of the grammar survives a round trip too."""
    assert_round_trip(text)


def test_fuzz() -> None:
    """10,000 mutations of valid scripts and random texts: a script, or a ScriptError, and never anything else."""
    rng = random.Random(2)
    parsed = 0
    for _ in range(10_000):
        text = "".join(rng.choices(SCRAPS, k=rng.randrange(30))) if rng.random() < 0.3 else rng.choice(SEEDS)
        for _ in range(rng.randrange(6)):
            at, length = rng.randrange(len(text) + 1), rng.choice((0, 0, 1, 1, 5, 20))
            text = text[:at] + rng.choice(["", *SCRAPS, chr(rng.randrange(0x300))]) + text[at + length :]
        parsed += assert_round_trip(text)
    assert parsed > 2_000, "the fuzz must reach valid scripts as well"
