"""The outline of a script: lengths, places in the text, remarks with their fixes."""

from __future__ import annotations

from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.script.outline import Outline, Place, outline


def test_lengths_are_planned_and_add_up() -> None:
    """Blocks, frames and seconds of the shots make those of the film, and each shot starts where the last ends."""
    film = outline(ShotScript.parse("Shot 1 (4s): a\nShot 2 (3 blocks) continue: b\nc @seed=3"), 24, 2)
    assert [(shot.asked, shot.blocks, shot.continues, shot.seed) for shot in film.shots] == [
        ("4s", 3, False, None),
        ("3 blocks", 3, True, None),
        ("", 2, False, 3),
    ]
    assert (film.blocks, film.frames) == (8, sum(shot.frames for shot in film.shots))
    assert [shot.start for shot in film.shots[1:]] == [93 / 24, 189 / 24]
    assert film.plan_notes == ("shot 1: 4 s becomes 3 blocks, 3.88 s",)


def test_each_shot_knows_where_it_is_written() -> None:
    """The header's place and those of the words, on several lines and for several shots on a line."""
    text = "style: ink\n\nShot 1 (4s): a fox\n   runs\nShot 2:\nit stops\n"
    film = outline(ShotScript.parse(text))
    assert [_written(text, shot.header) for shot in film.shots] == ["Shot 1 (4s): ", "Shot 2:"]
    assert [[_written(text, place) for place in shot.texts] for shot in film.shots] == [["a fox", "runs"], ["it stops"]]
    bars = outline(ShotScript.parse("night | day"))
    assert [shot.texts for shot in bars.shots] == [(Place(1, 1, 6),), (Place(1, 9, 12),)]


def test_remarks_have_their_ends_and_fixes() -> None:
    """A warning marks the words it is about."""
    film: Outline = outline(ShotScript.parse("Shot 1: a (fox:1.2) runs\n# b"))
    (warning,) = film.warnings
    assert (warning.column, warning.end) == (11, 20)
    assert warning.fix is not None and warning.fix.text == "fox"
    assert film.notes[0].line == 2


def _written(text: str, place: Place) -> str:
    return text.split("\n")[place.line - 1][place.column - 1 : place.end - 1]
