"""The report on the cards: worked out once for each film, and never while a prompt is executed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.take import Take
from longlive.longlive_core.training.world import Hero, WorldFilm, WorldShot, render
from longlive.longlive_core.video import VideoWriter

from .fake_host import fake_host

SCRIPT = ShotScript.parse("Shot 1 (1 block): a\nShot 2 (1 block): b\n")
SETTINGS: dict[str, Any] = {"fps": 24, "block_frames": 8, "size": "128x128", "seed": 0, "steps": 2}
FILM = WorldFilm(Hero("circle", "red", "big"), (WorldShot("navy", "plain", "left", "sway", "still", 61),))


@pytest.fixture
def module() -> Iterator[Any]:
    with fake_host() as load:
        yield load("longlive.nodes.continuity")


@pytest.fixture
def view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A take whose film has a cut that the film does not show."""
    take = Take.new(tmp_path / "film.take", SCRIPT, SETTINGS, {})
    take.folder.mkdir()
    take.save()
    frames = render(FILM)
    with VideoWriter(tmp_path / "film.mp4", width=128, height=128) as writer:
        for block in take.plan.blocks:
            writer.start_block()
            writer.write(frames[block.video_start : block.video_start + block.video_frames])
    monkeypatch.setattr(Take, "complete", True)
    return SimpleNamespace(take=take, film=tmp_path / "film.mp4", making=False)


def test_nothing_is_measured_while_a_prompt_is_executed(module: Any, view: SimpleNamespace) -> None:  # noqa: ANN401
    """Not begun, and not gone on with if one begins meanwhile; what is known is given at any time."""
    answers = iter([False] * 5)
    assert module.continuity(view, lambda: True) == module.WAITING
    assert module.continuity(view, lambda: next(answers, True)) == module.WAITING
    assert not (view.take.folder / "continuity.json").exists()
    report = module.continuity(view)
    assert [shot["score"] for shot in report["shots"]] == [1.0, 0.0]
    assert [fault["measure"] for fault in report["shots"][1]["faults"]] == ["cut"]
    assert module.continuity(view, lambda: True) == report


def test_another_film_of_the_same_blocks_is_not_measured_again(
    module: Any,  # noqa: ANN401
    view: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its report is a new one, from the facts that are kept; facts that cannot be read are measured again."""
    report = module.continuity(view)
    view.film = view.film.rename(view.film.with_name("film_2.mp4"))
    read, measure = list[int](), module.measure_blocks
    monkeypatch.setattr(module, "measure_blocks", lambda *given: (read.append(len(given[2])), measure(*given))[1])
    assert module.continuity(view) == report and read == [2]
    kept = view.take.folder / "continuity.json"
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "of": None, "blocks": [{"key": 1}]}))
    assert module.continuity(view) == report and read == [2, 0]
