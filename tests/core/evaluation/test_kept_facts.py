"""Facts of blocks that are kept: after a retake only what changed is measured, and the facts are those of the film."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from longlive.longlive_core.evaluation.continuity import score_film
from longlive.longlive_core.evaluation.film_facts import film_facts
from longlive.longlive_core.evaluation.kept_facts import KeptFacts, joined, measure_blocks
from longlive.longlive_core.evaluation.references import references_of
from longlive.longlive_core.evaluation.windows import Frames
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.training.world import Hero, WorldFilm, WorldShot, render
from longlive.longlive_core.video import VideoWriter, read_frames

SCRIPT = ShotScript.parse("Shot 1 (2 blocks): a\nShot 2 (2 blocks): b\nShot 3 (2 blocks): c\n")
PLAN = SCRIPT.plan(24, 8)
THIRD = 125  # the first frame of this shot
FILM = WorldFilm(
    Hero("circle", "red", "big"),
    (
        WorldShot("navy", "plain", "left", "sway", "still", 61),
        WorldShot("grey", "checked", "right", "bob", "left", 64),
        WorldShot("navy", "plain", "middle", "circle", "still", 64),
    ),
)


def written(path: Path, frames: Frames) -> Path:
    with VideoWriter(path, width=frames.shape[2], height=frames.shape[1]) as writer:
        for block in PLAN.blocks:
            writer.start_block()
            writer.write(frames[block.video_start : block.video_start + block.video_frames])
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A film, and the same one with another version of its third shot."""
    folder, first = tmp_path_factory.mktemp("films"), render(FILM)
    other = render(replace(FILM, hero=replace(FILM.hero, colour="orange")), THIRD)
    return written(folder / "1.mp4", first), written(folder / "2.mp4", np.concatenate([first[:THIRD], other]))


def measured(film: Path, kept: tuple[KeptFacts, ...] = ()) -> tuple[tuple[KeptFacts, ...], int]:
    """The facts of a film, and how many frames were read for them."""
    read = list[None]()
    facts = measure_blocks(film, PLAN, {block.key: block for block in kept}, lambda: read.append(None))
    return facts, len(read)


def as_json(blocks: tuple[KeptFacts, ...]) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(block.as_json())) for block in blocks]


def test_the_facts_of_blocks_are_those_of_the_film(films: tuple[Path, Path]) -> None:
    """Joined, also after they were in a file: the scores of the shots are the same."""
    facts, read = measured(films[1])
    again = tuple(map(KeptFacts.from_json, as_json(facts)))
    assert read == PLAN.video_frames and as_json(again) == as_json(facts)
    references = references_of(SCRIPT, PLAN)
    straight = score_film(film_facts(read_frames(films[1]), PLAN.blocks), PLAN, references)
    kept = score_film(joined(again, PLAN), PLAN, references)
    assert [one.score for one in kept] == pytest.approx([one.score for one in straight], abs=1e-4)
    assert kept[2].scores["identity"] == pytest.approx(straight[2].scores["identity"], abs=1e-4)


def test_only_what_changed_is_read(films: tuple[Path, Path]) -> None:
    """Nothing of the same film; of one with another shot, that shot and what is beside it, with the facts of a whole
    measurement."""
    first, _ = measured(films[0])
    assert measured(films[0], first)[1] == 0
    facts, read = measured(films[1], first)
    assert read == PLAN.video_frames - PLAN.blocks[2].video_start
    assert as_json(facts) == as_json(measured(films[1])[0])


def test_a_film_whose_blocks_cannot_be_read_alone_is_measured_whole(tmp_path: Path) -> None:
    """One of another program, without key frames at the blocks; and one that is too short is refused."""
    frames = render(FILM)
    with VideoWriter(tmp_path / "whole.mp4", width=128, height=128) as writer:
        writer.write(frames)
    facts, read = measured(tmp_path / "whole.mp4")
    assert read == PLAN.video_frames and measured(tmp_path / "whole.mp4", facts)[1] == read
    with VideoWriter(tmp_path / "short.mp4", width=128, height=128) as writer:
        writer.write(frames[:-1])
    with pytest.raises(ValueError, match="188 frames, but its plan has 189"):
        measured(tmp_path / "short.mp4")
