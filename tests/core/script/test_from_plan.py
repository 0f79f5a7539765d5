"""A plan written as a script: the script plans to the very same film, whatever its prompts say."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longlive.longlive_core.script import BlockPlan, Length, ShotScript, plan_shot
from longlive.longlive_core.script.block_plan import CUT_PREFIX
from longlive.longlive_core.script.from_plan import script_of

SIGNS = [
    *"{}[]()@#|\\:=\"'–\uff1a\u2028\xa0\ufeff",
    *(
        "{hero}",
        "[4s]",
        "(8 blocks)",
        "@seed=7",
        "@x",
        "# a",
        "---",
        "\\{",
        "continue",
        "continue:",
        "Shot 2:",
        "style:",
    ),
    *("hero:", "漢字", "🦊", "é", "İ", "The scene transitions.", "The scene transitions. "),
]
prompts = st.lists(st.one_of(st.sampled_from(SIGNS), st.text(max_size=4)), min_size=1, max_size=8).map("".join)
shots = st.tuples(prompts, st.integers(1, 3), st.none() | st.integers(0, 2**64 - 1), st.booleans())


def planned(parts: list[tuple[str, int, int | None, bool]], fps: float, frames: int) -> BlockPlan | None:
    """The film of LongLive Shots in a row; None where one of the prompts is none."""
    film: BlockPlan | None = None
    for prompt, blocks, seed, cut in parts:
        try:
            one = plan_shot(prompt, Length(Decimal(blocks), "blocks"), seed, fps=fps, block_frames=frames)
        except ValueError:
            return None
        film = one if film is None else film.then(one, cut)
    return film


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(shots, min_size=1, max_size=4), st.sampled_from([24, 16.0, 29.97, 60]), st.sampled_from([2, 8]))
def test_the_script_of_a_plan_is_that_film(
    parts: list[tuple[str, int, int | None, bool]], fps: float, frames: int
) -> None:
    """Written and read again, it has the same blocks, prompts, seeds and cuts; control characters have no place."""
    plan = planned(parts, fps, frames)
    if plan is None:
        return
    try:
        script = script_of(plan)
    except ValueError as error:
        assert "control character" in str(error)
        return
    again = ShotScript.parse(script.format())
    assert again == script
    assert again.plan(fps, frames).blocks == plan.blocks


def test_the_script_of_a_script_s_plan_is_readable() -> None:
    """Lengths in blocks, a seed where there was one, `continue`, and the announced cut left out."""
    written = "style: ink\nhero: a fox\nShot 1 (4s): {hero} [left]\nShot 2 (2 blocks) continue: it sits @seed=9\na lake"
    plan = ShotScript.parse(written).plan()
    lines = script_of(plan).format().splitlines()
    assert lines == [
        "Shot 1 (3 blocks): a fox \\[left\\], ink",
        "Shot 2 (2 blocks) continue: it sits, ink @seed=9",
        "Shot 3 (3 blocks): a lake, ink",
    ]


def test_a_plan_that_no_script_has_is_refused() -> None:
    """Another prompt in the middle of a shot would be lost without a word."""
    plan = plan_shot("a fox", Length(Decimal(2), "blocks"))
    odd = replace(plan, blocks=(plan.blocks[0], replace(plan.blocks[1], prompt="a lake")))
    with pytest.raises(ValueError, match="cannot be written as a script"):
        script_of(odd)
    # One that only looks announced keeps its words.
    said = plan_shot(f"{CUT_PREFIX}a fox", Length(Decimal(1), "blocks"))
    assert script_of(said).shots[0].prompt == f"{CUT_PREFIX}a fox"
