"""A run that stops within a part of a batch: at once, with the state of the last whole step, and resumed to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.training.checkpoint import Checkpoints
from longlive.longlive_core.training.layer_stops import StoppedInPart, stops_at_layers
from longlive.longlive_core.training.run_folder import find_run
from longlive.longlive_core.training.stage import Loss, OptimiserSettings, Origin, Trained
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from torch import nn


class Toy:
    """A stage of five layers, whose loss counts how often a layer has run."""

    name, origins = "toy", Mapping[str, Origin]

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
        self.origins: dict[str, Origin] = {}
        self.trained = (Trained("toy", self.module, OptimiserSettings(lr=0.1)),)

    def loss(self, _name: str, step: int, part: int, /) -> Loss:
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(10 * step + part))
        return Loss(self.module(x).square().mean())

    def validation_loss(self, _step: int, /) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, _state: dict[str, Any], /) -> None: ...


class Countdown:
    """`should_stop` that answers yes from its n-th question on."""

    def __init__(self, questions: int) -> None:
        self.left, self.asked = questions, 0

    def __call__(self) -> bool:
        self.asked += 1
        self.left -= 1
        return self.left < 0


def weights(stage: Toy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in stage.module.parameters()])


# A step asks once before its part, then at five layers forwards and five backwards.
@pytest.mark.parametrize("questions", [11 * 2, 11 * 2 + 1, 11 * 2 + 4, 11 * 2 + 6, 11 * 2 + 10])
def test_a_stop_within_a_part_is_resumed_to_the_bit(tmp_path: Path, questions: int) -> None:
    """Forwards or backwards, the stop comes at the next layer; the third step is repeated whole on resumption."""
    whole = Toy()
    assert Trainer(whole, TrainerSettings(5), tmp_path / "whole").run()
    stopped, stop = Toy(), Countdown(questions)
    trainer = Trainer(stopped, TrainerSettings(5), tmp_path / "run", should_stop=stop, stop_in_parts=True)
    assert not trainer.run()
    assert (trainer.step, stop.asked) == (2, questions + 1)
    assert Checkpoints(tmp_path / "run" / "checkpoints").places() == [(2, 0)]
    resumed = Toy()
    assert Trainer(resumed, TrainerSettings(5), tmp_path / "run").run()
    assert torch.equal(weights(resumed), weights(whole))


def test_questions_change_no_number(tmp_path: Path) -> None:
    """A run that is asked at each layer and never stops has the weights of a plain one."""
    plain, asked = Toy(), Toy()
    assert Trainer(plain, TrainerSettings(3), tmp_path / "plain").run()
    assert Trainer(asked, TrainerSettings(3), tmp_path / "asked", should_stop=lambda: False, stop_in_parts=True).run()
    assert torch.equal(weights(plain), weights(asked))


def test_several_parts_stop_between_them_only(tmp_path: Path) -> None:
    """Gradients of parts that are done would be lost, so such a run is refused."""
    with pytest.raises(ValueError, match="with 2 parts of a batch in 1 processes a run stops between parts only"):
        Trainer(Toy(), TrainerSettings(3, accumulation=2), tmp_path, stop_in_parts=True)


def test_no_hook_is_left() -> None:
    """After the context, and after a stop in it, a module runs as before."""
    layer = nn.Linear(2, 2)
    with pytest.raises(StoppedInPart), stops_at_layers(layer, lambda: True):
        layer(torch.ones(1, 2))
    assert layer(torch.ones(1, 2)).shape == (1, 2)


def test_the_same_settings_find_their_run(tmp_path: Path) -> None:
    """The newest run of the settings is found; others get the next free number, and say in what they differ."""
    first = find_run(tmp_path, "fox", {"rank": 4, "size": (32, 64)})
    assert (first.path.name, first.changed) == ("fox_00001", ())
    second = find_run(tmp_path, "fox", {"rank": 8, "size": (32, 64)}, lambda name: name == "fox_00002")
    assert (second.path.name, second.changed) == ("fox_00003", ("rank",))
    assert find_run(tmp_path, "fox", {"rank": 4, "size": (32, 64)}).path == first.path
    assert find_run(tmp_path, "box", {"rank": 4, "size": (32, 64)}).path.name == "box_00001"
    (first.path / "run.json").write_text("{", "utf-8")
    assert find_run(tmp_path, "fox", {"rank": 4, "size": (32, 64)}).path.name == "fox_00004"
