"""The prior of a LoRA: what the base knows, which the LoRA is to leave as it is."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.training.ar_inputs import ARBatch
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.lora import LoraSettings
from longlive.longlive_core.training.lora_stage import LoraStage, Prior
from longlive.longlive_core.training.stage import OptimiserSettings
from longlive.longlive_core.training.teacher_forcing import plain_flow
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from torch import Tensor

from ..conftest import Tiny

CUTS = (False, True)


class Known:
    """A source of random films with one text, so that a LoRA can tell two sources apart."""

    def __init__(self, model: CausalWan, text: float) -> None:
        self._config, self._text = model.config, text

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        clean = torch.from_numpy(rng.normal(size=(1, self._config.channels, 4, 4, 6))).float()
        text = torch.full((1, 3, self._config.text_dim), self._text)
        return ARBatch(clean, text, torch.zeros(1, 2).long(), torch.arange(4.0), CUTS, name=f"text {self._text}")

    def flow(self, model: CausalWan) -> Tensor:
        """The flow of one of its films at high noise."""
        batch = self.batch(np.random.default_rng(5))
        return plain_flow(
            model, batch.clean, torch.full((1, 4), 800.0), batch.text, batch.prompts, batch.positions, 2
        ).detach()


Make = Callable[..., LoraStage]


@pytest.fixture
def make(tiny: Tiny) -> Make:
    """Makes a stage on a copy of the tiny model, whose clips have the text 1 and whose prior has the text -1."""

    def build(prior: float | None = 1.0) -> LoraStage:
        model = deepcopy(tiny.model)
        return LoraStage(
            model,
            Known(model, 1.0),
            ARSettings(block_frames=2, sink=2, window=8, weighting="uniform"),
            LoraSettings(4, 4.0),
            OptimiserSettings(lr=0.02, betas=(0.9, 0.99)),
            0,
            prior=None if prior is None else Prior(Known(model, -1.0), prior),
        )

    return build


def move(stage: LoraStage) -> None:
    """Gives the LoRA some weights."""
    generator = torch.Generator().manual_seed(1)
    for parameter in stage.weights.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)


def test_every_second_step_is_one_of_the_prior(make: Make) -> None:
    """The other steps have the loss that they have without a prior."""
    with_prior, without = make(), make(None)
    move(with_prior)
    move(without)
    even, odd = with_prior.loss("model", 4, 0), with_prior.loss("model", 5, 0)
    assert (even.kind, even.batch) == ("loss", "text 1.0") and (odd.kind, odd.batch) == ("prior.loss", "text -1.0")
    assert float(even.value.detach()) == float(without.loss("model", 4, 0).value.detach())
    assert without.loss("model", 5, 0).kind == "loss"


def test_the_target_is_the_flow_of_the_base(make: Make) -> None:
    """A LoRA that changes nothing has no loss and no gradient; one that does has both, scaled by the weight."""
    stage = make()
    loss = stage.loss("model", 1, 0).value
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in stage.weights.parameters())
    move(stage)
    loss = stage.loss("model", 1, 0).value
    loss.backward()
    assert float(loss.detach()) > 0
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in stage.weights.parameters())
    heavier = make(3.0)
    move(heavier)
    assert float(heavier.loss("model", 1, 0).value.detach()) == pytest.approx(3 * float(loss.detach()), rel=1e-6)


def test_the_adapter_is_on_after_a_stop_in_the_pass_of_the_base(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped in the pass without the LoRA leaves the model with it."""
    stage = make()
    move(stage)
    before = Known(stage.model, 1.0).flow(stage.model)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("longlive.longlive_core.training.lora_stage.ar_step", stop)
        stage.loss("model", 1, 0)
    assert torch.equal(Known(stage.model, 1.0).flow(stage.model), before)


@pytest.mark.slow
def test_a_prior_keeps_what_the_base_does(make: Make, tiny: Tiny, tmp_path: Path) -> None:
    """With a prior, a LoRA that learns as many clips changes the films of the prior's text less than half as much."""
    changes: dict[bool, float] = {}
    for has_prior in (False, True):
        stage = make(4.0 if has_prior else None)
        steps = 60 if has_prior else 30
        assert Trainer(stage, TrainerSettings(steps=steps, save_every=steps), tmp_path / str(has_prior)).run()
        known = Known(stage.model, -1.0)
        changes[has_prior] = float((known.flow(stage.model) - known.flow(tiny.model)).square().mean())
    assert changes[True] < changes[False] / 2
    lines = TrainingLog(tmp_path / "True").lines()
    assert [("model.loss" in line, "model.prior.loss" in line) for line in lines[:2]] == [(True, False), (False, True)]
