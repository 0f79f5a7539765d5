"""The log of a training run, its progress and its plot."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from longlive.longlive_core.training.log import PLOT_FILE, TrainingLog, TrainingProgress, plot_losses, progress_of
from longlive.longlive_core.training.trainer import Trainer
from PIL import Image

from .toy import SETTINGS, ToyStage


def test_log_plot_and_progress(tmp_path: Path) -> None:
    """Each step reports its progress and has a line of strict JSON; the plot shows the losses."""
    seen: list[TrainingProgress] = []
    assert Trainer(ToyStage(), replace(SETTINGS, steps=6), tmp_path, on_progress=seen.append).run()
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert all(p.steps == 6 and p.pace > 0 and set(p.loss) == {"model", "critic"} for p in seen)
    assert seen[0].seconds_left == 5 * seen[0].pace and seen[-1].seconds_left == 0
    lines = TrainingLog(tmp_path).lines()
    assert ["validation.square" in line for line in lines] == [False, False, True, False, False, True]
    assert {"model.loss", "model.norm", "model.lr", "model.error"} <= lines[1].keys()
    assert progress_of(lines).loss == seen[-1].loss
    with Image.open(tmp_path / PLOT_FILE) as image:
        assert image.size == (900, 60 + 220 * 3)
        colours = {tuple(c[:3]) for _, c in image.convert("RGB").getcolors(1 << 20) or ()}
    assert len(colours) > 10


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [float(i % 7) for i in range(1000)]])
def test_a_plot_of_few_or_many_steps(values: list[float]) -> None:
    """No, one, equal or many values make a plot; NaN was logged as null."""
    lines = [{"step": i + 1, "model.loss": v} for i, v in enumerate(values)] + [{"step": 9, "model.loss": None}]
    assert plot_losses(lines).width == 900


def test_the_log_is_strict_json(tmp_path: Path) -> None:
    """A figure that is not finite becomes null."""
    TrainingLog(tmp_path).append({"step": 1, "steps": 2, "seconds": 1.0, "a.figure": math.nan})
    assert json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail)["a.figure"] is None
