"""The continuity report: each measure reacts to its fault and to no other, on films of LongLive Mini's world."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from longlive.longlive_core.evaluation import film_facts as facts_module
from longlive.longlive_core.evaluation.continuity import (
    LIMIT,
    MEASURES,
    Measure,
    ShotScore,
    either_of_recalled,
    score_film,
)
from longlive.longlive_core.evaluation.continuity_report import report_data, report_lines, worst_first
from longlive.longlive_core.evaluation.film_facts import film_facts
from longlive.longlive_core.evaluation.references import References, references_of
from longlive.longlive_core.evaluation.windows import Frames
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.training.world import Hero, WorldFilm, WorldShot, render

SCRIPT = ShotScript.parse(
    "Shot 1 (2 blocks): a @keep=place\nShot 2 (2 blocks): b\nShot 3 (2 blocks): c @recall=place\n"
)
PLAN = SCRIPT.plan(24, 8)
REFERENCES = references_of(SCRIPT, PLAN)
SECOND, THIRD = 61, 125  # the first frames of these shots
FILM = WorldFilm(
    Hero("circle", "red", "big"),
    (
        WorldShot("navy", "plain", "left", "sway", "still", 61),
        WorldShot("grey", "checked", "right", "bob", "left", 64),
        WorldShot("navy", "plain", "middle", "circle", "still", 64),
    ),
)


def scored(frames: Frames) -> tuple[ShotScore, ...]:
    return score_film(film_facts(frames, PLAN.blocks, detector=False), PLAN, REFERENCES)


def below(frames: Frames) -> list[tuple[int, str]]:
    """The shots, from 1, and the measures that are below the limit."""
    return [
        (score.shot + 1, name)
        for score in scored(frames)
        for name in MEASURES
        if (value := score.scores[name]) is not None and value < LIMIT
    ]


@pytest.fixture(scope="module")
def clean() -> Frames:
    return render(FILM)


def test_a_film_without_a_fault_is_above_the_limit(clean: Frames) -> None:
    """Other places, motions and pans are no faults; a shot without a place to compare has no score for it."""
    assert below(clean) == []
    assert [score.scores["place"] is None for score in scored(clean)] == [True, True, False]


def test_identity_reacts_to_a_recoloured_hero(clean: Frames) -> None:
    """In the shot with the other colour, and in no other measure of it."""
    other = render(replace(FILM, hero=replace(FILM.hero, colour="orange")), SECOND, THIRD)
    assert below(np.concatenate([clean[:SECOND], other, clean[THIRD:]])) == [(2, "identity")]
    late = clean.copy()
    late[SECOND + 32 : THIRD] = other[32:]
    assert (2, "identity") in below(late)  # in one of its blocks is enough


def test_place_reacts_to_another_place_than_the_recalled_one(clean: Frames) -> None:
    """Of the shot that recalls it only."""
    shots = (*FILM.shots[:2], replace(FILM.shots[2], background="wine"))
    assert below(np.concatenate([clean[:THIRD], render(replace(FILM, shots=shots), THIRD)])) == [(3, "place")]


def test_cut_reacts_to_a_missing_and_to_an_unasked_cut(clean: Frames) -> None:
    """A shot that goes on as the one before, and one whose picture turns around within a block and back."""
    long = render(WorldFilm(FILM.hero, (replace(FILM.shots[0], frames=125),)))
    assert below(np.concatenate([long, clean[THIRD:]])) == [(2, "cut")]
    jump = clean.copy()
    jump[SECOND + 10 : SECOND + 20] = jump[SECOND + 10 : SECOND + 20, :, ::-1]
    assert below(jump) == [(2, "cut")]


def test_seam_reacts_to_a_step_between_blocks(clean: Frames) -> None:
    """Of a few levels, where frames beside it hardly change; the same step within a block is none of a seam."""
    frames = clean.astype(np.int16)
    frames[SECOND + 32 : THIRD] += 6
    assert below(frames.clip(0, 255).astype(np.uint8)) == [(2, "seam")]
    frames = clean.astype(np.int16)
    frames[SECOND + 16 : THIRD] += 6
    assert below(frames.clip(0, 255).astype(np.uint8)) == []


def test_colour_reacts_to_a_slow_drift(clean: Frames) -> None:
    """A shot that loses its light from block to block, too slowly for a seam; its hero in less light is the same."""
    frames = clean.copy()
    gain = np.linspace(1.0, 0.55, THIRD - SECOND)[:, None, None, None]
    frames[SECOND:THIRD] = (frames[SECOND:THIRD] * gain).round()
    assert below(frames) == [(2, "colour")]


def test_what_a_shot_is_compared_with_follows_from_the_script() -> None:
    """Recalled blocks, else the first one; a name for a place or a subject only; a shot that returns to a name."""
    script = ShotScript.parse(
        "hall: a hall\nfox: a fox\n"
        "Shot 1 (1 block): {fox}\nShot 2 (2 blocks): {hall} @keep=hall,hero@2\nShot 3 (1 block): c @recall=hall,hero\n"
        "Shot 4 (1 block) continue: d\nShot 5 (1 block): {hall}\n"
    )
    plan = script.plan(24, 8)

    def found(**names: tuple[str, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        return [(one.identity, one.place) for one in references_of(script, plan, **names)]

    assert found() == [((0,), ()), ((0,), ()), ((1, 2), (1, 2)), ((0,), (3,)), ((0,), ())]
    named = found(places=("hall",), subjects=("Hero",))
    assert named == [((0,), ()), ((0,), ()), ((2,), (1,)), ((0,), (3,)), ((0,), (1,))]
    with pytest.raises(ValueError, match=r"no shot keeps 'hut'.*fox, hall, hero"):
        found(places=("hut",))
    with pytest.raises(ValueError, match="'hall' is given as a place and as a subject"):
        found(places=("hall",), subjects=("hall",))


def test_a_part_replaces_its_frames_only(clean: Frames) -> None:
    """Facts of a part of a film, which begins behind its block, join those of the film and equal them."""
    film = film_facts(clean, PLAN.blocks, detector=False)
    part = film_facts(clean[SECOND - 29 :], PLAN.blocks[1:], SECOND - 29, detector=False)
    joined = film.with_part(part)
    assert joined.steps == film.steps and joined.found == film.found
    assert score_film(joined, PLAN, REFERENCES) == score_film(film, PLAN, REFERENCES)


def test_the_report_names_the_worst_shot_first_and_its_json_is_stable(clean: Frames) -> None:
    """Every key, and the same text for the same film; the lines say which shot differs from which."""
    other = render(replace(FILM, hero=replace(FILM.hero, colour="green")), SECOND, THIRD)
    frames = np.concatenate([clean[:SECOND], other, clean[THIRD:]])
    scores = scored(frames)
    data = report_data("film.mp4", scores, REFERENCES, LIMIT, detector=False)
    assert list(data) == ["format", "film", "limit", "cuts", "score", "worst_first", "shots"]
    assert data["format"] == "longlive-continuity-1" and data["worst_first"][0] == 2
    assert list(data["shots"][1]) == ["shot", "score", "worst", "scores", "compared"]
    assert data["shots"][1]["worst"] == "identity" and data["shots"][2]["compared"] == {"identity": [0], "place": [0]}
    again = report_data("film.mp4", scored(frames), REFERENCES, LIMIT, detector=False)
    assert json.dumps(data, allow_nan=False) == json.dumps(again, allow_nan=False)
    lines = list(report_lines(scores, PLAN, REFERENCES, LIMIT))
    assert lines[1].split()[0] == "2" and "shot 2: identity: its subject has other colours than that of shot 1" in lines
    assert worst_first(scores)[0].shot == 1 and lines[-1] == "2 of 3 shots at 0.8 or above"


def test_a_film_that_is_too_short_is_refused(clean: Frames) -> None:
    """Before anything is compared."""
    with pytest.raises(ValueError, match="the film has 100 frames, but its plan has 189; finish it first"):
        film_facts(clean[:100], PLAN.blocks, detector=False)


def test_a_cut_that_either_way_finds_counts(clean: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    """PySceneDetect adds its cuts to those of our own rule where it is installed."""
    monkeypatch.setattr(facts_module, "cut_finder", lambda: lambda _: [7])
    assert film_facts(clean, PLAN.blocks, detector=True).found == {7, SECOND, THIRD}
    assert isinstance(REFERENCES[0], References)


def test_a_shot_is_compared_with_the_picture_of_a_cast_file(clean: Frames) -> None:
    """One that recalls it; without a picture it is compared with nothing. A low score names the file."""
    shots = "Shot 1 (2 blocks): a\nShot 2 (2 blocks): b\nShot 3 (2 blocks) @recall=a: c\n"
    script = ShotScript.parse(f"cast: a.safetensors\n{shots}")
    references = references_of(script, script.plan(24, 8))
    assert references[2] == References((-1,), (-1,))
    facts = film_facts(clean, PLAN.blocks, detector=False)
    assert score_film(facts, PLAN, references)[2].scores["identity"] is None
    other = 255 - clean[THIRD]
    for still, fits in ((clean[THIRD + 8], True), (other, False)):
        scores = score_film(facts.with_stills({-1: still}), PLAN, references)
        assert ((scores[2].scores["identity"] or 0) >= LIMIT) == fits
        assert any("that of cast file 1" in line for line in report_lines(scores, PLAN, references, LIMIT)) != fits


def test_of_a_recalled_block_one_thing_has_to_come_back() -> None:
    """Its subject or its place, where nobody says which; the other is left out. A shot that recalls nothing stays."""

    def scored(shot: int, identity: float | None, place: float | None) -> tuple[float, list[str]]:
        values: dict[Measure, float | None] = {"identity": identity, "place": place, "cut": 1.0}
        score = either_of_recalled(ShotScore(shot, values), PLAN)
        return score.score, [name for name, value in score.scores.items() if value is None]

    assert scored(2, 0.9, 0.1) == (0.9, ["place"]) and scored(2, 0.1, 0.9) == (0.9, ["identity"])
    assert scored(2, 0.3, 0.1) == (0.1, []) and scored(2, None, 0.1) == (0.1, ["identity"])
    assert scored(1, 0.9, 0.1) == (0.1, [])
