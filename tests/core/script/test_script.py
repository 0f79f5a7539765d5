"""ShotScript: everything people type becomes the same shots."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from longlive.longlive_core.script import Length, ScriptError, ShotScript

DESIGN = """\
# comment
style: hand-painted watercolour, soft light
hero: a red fox with a white scarf

Shot 1 (4s): {hero} trots through fresh snow. @seed=7
---
[4s-9s]: {hero} stops at a frozen lake, wide shot
Shot 3 (8 blocks) continue: {hero} looks up
a plain line with no header is a shot of the default length
"""


def texts(script: str) -> list[str]:
    return [shot.text for shot in ShotScript.parse(script).shots]


def times(script: str) -> list[tuple[str | None, str | None]]:
    """Start and duration of every shot, as text."""
    shots = ShotScript.parse(script).shots
    return [(shot.start and str(shot.start), shot.duration and str(shot.duration)) for shot in shots]


def test_the_whole_grammar_at_once() -> None:
    """The example of the design: style and names reach the prompts, times and flags the shots."""
    first, second, third, fourth = ShotScript.parse(DESIGN).shots
    assert first.text == "{hero} trots through fresh snow."
    assert first.prompt == (
        "a red fox with a white scarf trots through fresh snow. hand-painted watercolour, soft light"
    )
    assert (first.duration, first.seed, first.continues) == (Length(Decimal(4), "s"), 7, False)
    assert (second.start, second.duration) == (Length(Decimal(4), "s"), Length(Decimal(5), "s"))
    assert second.prompt.endswith("stops at a frozen lake, wide shot, hand-painted watercolour, soft light")
    assert (third.duration, third.continues) == (Length(Decimal(8), "blocks"), True)
    assert fourth.text == "a plain line with no header is a shot of the default length"
    assert (fourth.start, fourth.duration, fourth.seed) == (None, None, None)


@pytest.mark.parametrize(
    "script",
    [
        "Shot 1 (4s): a fox\nShot 2 (4s): a lake",
        "shot 1 (4 sec) a fox\nSHOT 2 (4 seconds): a lake",
        "Scene 1 (4s): a fox\nScene 2 [4s-8s]: a lake",
        "Shot 1: a fox\nShot 2: a lake",
        "Shot #1 - a fox\nShot #2 - a lake",
        "Shot1: a fox\nShot2: a lake",
        "Scene 1.\n  a fox\nScene 2.\n  a lake",
        "[0s-4s]: a fox\n[4s-8s]: a lake",
        "[0s-4s] a fox\n[4s–8s] a lake",
        "[0:00-0:04] a fox\n[0:04 to 0:08] a lake",
        "[0s: a fox]\n[4s: a lake]",
        "[0s-4s: a fox]\n[4s-8s: a lake]",
        "(4s) a fox\n(96f) a lake",
        "a fox\na lake",
        "a fox\n---\na lake",
        "---\na fox\n-----\n\n---\na lake\n---",
        "a fox | a lake",
        "| a fox | a lake |",
        "Shot 1 (4s): a fox | Shot 2 (3 blocks): a lake",
        "Shot 1 (4s):\na fox\n\nShot 2 (4s):\na lake",
        "  a fox\r\n  a lake\r\n",
        "\ufeffa fox\ra lake",
        "# first\na fox\n  # second\na lake",
        "a\n  fox\na\n\tlake",
    ],
)
def test_what_people_type(script: str) -> None:
    """However a script of two shots is written, it has the same two texts."""
    assert texts(script) == ["a fox", "a lake"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Shot 1 (4s):", (None, "4s")),
        ("Shot 1 (1.5 s):", (None, "1.5s")),
        ("Shot 1 (96f):", (None, "96f")),
        ("Shot 1 (96 frames):", (None, "96f")),
        ("Shot 1 (3 blocks):", (None, "3 blocks")),
        ("Shot 1 (1 block):", (None, "1 block")),
        ("Shot 1 (2 chunks):", (None, "2 blocks")),
        ("Shot 1 (0:12):", (None, "12s")),
        ("Shot 1 (1:00:00.5):", (None, "3600.5s")),
        ("[4s]:", ("4s", None)),
        ("[4s-9s]:", ("4s", "5s")),
        ("[0-9s]", ("0s", "9s")),
        ("[0-96f]", ("0f", "96f")),
        ("[2 - 5 blocks]:", ("2 blocks", "3 blocks")),
        ("Shot 1 (4s -> 9s):", ("4s", "5s")),
        ("Shot 1:", (None, None)),
    ],
)
def test_times(header: str, expected: tuple[str | None, str | None]) -> None:
    """Round brackets hold a length, square ones a start, a range is both."""
    assert times(f"{header} a fox") == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "Shot 1 continue: a fox",
        "Shot 1 (4s) continue: a fox",
        "Shot 1 (4s, continue): a fox",
        "[0s-4s] continue: a fox",
        "[0s-4s, continue]: a fox",
        "continue: a fox",
    ],
)
def test_continue_is_a_flag(line: str) -> None:
    """`continue` in a header asks for no cut."""
    (shot,) = ShotScript.parse(line).shots
    assert (shot.text, shot.continues) == ("a fox", True)


@pytest.mark.parametrize(
    "line",
    [
        "[wide shot] a fox",
        "Shot of tequila on a bar: close-up",
        "Shot 3 of tequila on a bar",
        "scene-setting words about a lake",
        "a fox (running) [close]",
        "Mail a@seed.org or meet @ 5 o'clock",
        "a #1 fox",
    ],
)
def test_plain_text_stays_text(line: str) -> None:
    """What only resembles a header or directive is the shot's text, whole."""
    assert texts(line) == [line]


def test_continue_as_a_word() -> None:
    """Without a colon after it, `continue` belongs to the text."""
    (shot,) = ShotScript.parse("Shot 1 (4s) continue walking").shots
    assert (shot.text, shot.continues) == ("continue walking", False)


def test_names() -> None:
    """Names are found whatever their case, may use names above them, and may be written in any alphabet."""
    script = ShotScript.parse("Fox: a red fox\npair: { fox } and a dog\n夜の熊: a bear\n\n{PAIR} meet {夜の熊}")
    assert script.shots[0].prompt == "a red fox and a dog meet a bear"


def test_definitions_end_at_the_first_shot() -> None:
    """Below the first shot `word: text` is a shot or part of one, so that nothing of a film gets lost."""
    assert texts("a fox\nCamera: slow pan") == ["a fox", "Camera: slow pan"]
    assert texts("Shot 1:\nStyle: noir\nCamera: slow pan") == ["Style: noir Camera: slow pan"]


def test_escapes() -> None:
    """A backslash makes a sign plain, in the prompt without the backslash."""
    (shot,) = ShotScript.parse(r"a \{fox\} \| a lake \( \@seed=7").shots
    assert shot.prompt == "a {fox} | a lake ( @seed=7"
    assert shot.seed is None


def test_directives() -> None:
    """A directive may stand anywhere in a shot's text, or on a line of its own below it."""
    assert [shot.seed for shot in ShotScript.parse("@seed=1 a\nb @seed = 2 c\nd\n@seed=3").shots] == [1, 2, 3]
    assert texts("b @seed = 2 c") == ["b c"]


def test_the_style_is_joined_as_a_sentence_or_a_clause() -> None:
    """After a full stop the style stands alone, else a comma joins it."""
    prompts = [shot.prompt for shot in ShotScript.parse("style: ink\na fox.\na lake").shots]
    assert prompts == ["a fox. ink", "a lake, ink"]


def test_read(tmp_path: Path) -> None:
    """A script file is UTF-8, a byte order mark or not."""
    path = tmp_path / "film.txt"
    path.write_bytes(b"\xef\xbb\xbf" + DESIGN.encode())
    assert ShotScript.read(path) == ShotScript.parse(DESIGN)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "line 1, column 1: .* is not a UTF-8 text file: byte 0x89 at offset 0"),
        (b"a fox\na \xffox", "line 2, column 3: .* byte 0xff at offset 8"),
        ("a fox".encode("utf-16-le"), r"line 1, column 2: control character U\+0000: save .* as plain UTF-8"),
        (b"a fox\n" * 10_000_000, "too large; the limit for a script is 16 MiB"),
        (b"", "the script has no shots"),
    ],
    ids=["png", "broken-utf8", "utf-16", "60-mb", "empty"],
)
def test_files_that_are_no_script(tmp_path: Path, data: bytes, message: str) -> None:
    """Binary and huge files are refused before any work, with the place and the reason."""
    path = tmp_path / "film.txt"
    path.write_bytes(data)
    with pytest.raises(ScriptError, match=message):
        ShotScript.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, and a folder, are script errors too."""
    with pytest.raises(ScriptError, match=r"cannot read .*none\.txt: No such file"):
        ShotScript.read(tmp_path / "none.txt")
    with pytest.raises(ScriptError, match="cannot read"):
        ShotScript.read(tmp_path)
