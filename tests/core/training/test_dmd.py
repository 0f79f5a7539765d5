"""Distillation: it agrees with the recorded steps, trains one LoRA at a time, and resumes to the bit."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from longlive.longlive_core.evaluation.verify import verify_file
from longlive.longlive_core.training import trainer as trainer_module
from longlive.longlive_core.training.clips import PlanClips
from longlive.longlive_core.training.dmd import (
    CRITIC,
    GENERATOR,
    Batch,
    Roles,
    critic_step,
    draw,
    draw_exit_step,
    generator_step,
    score_timesteps,
)
from longlive.longlive_core.training.dmd_losses import critic_loss, dmd_gradient, generator_loss, guided
from longlive.longlive_core.training.dmd_stage import DMDSettings, DMDStage
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.lora import LoraCard, LoraSettings, read_card, save_lora
from longlive.longlive_core.training.stage import OptimiserSettings
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from longlive.longlive_core.types import LatentShape
from longlive.longlive_core.weights import CheckpointError, open_source, read_lora
from safetensors import safe_open
from safetensors.torch import save_file

from ..conftest import Tiny

pytestmark = pytest.mark.slow

SETTINGS = DMDSettings(
    steps=2,
    size=(4, 6),
    block_frames=2,
    rank=2,
    alpha=2.0,
    window=8,
    sink=2,
    kv_format="float32",
    generator=OptimiserSettings(lr=0.01, every=2),
    critic=OptimiserSettings(lr=0.01),
)


def stage(tiny: Tiny, settings: DMDSettings = SETTINGS, seed: int = 3, **options: Any) -> DMDStage:  # noqa: ANN401
    """A stage on a copy of the tiny model, with clips of two plans."""
    plans = [tiny.plan("A A |B"), tiny.plan("B C |A")]
    return DMDStage(deepcopy(tiny.model), PlanClips(plans, tiny.text, "N", batch=2), settings, seed, **options)


def recorded(golden: Callable[[str], Path], name: str) -> Path:
    """A recorded step of the reference; skips where it is absent."""
    path = golden(f"train/{name}")
    if not path.is_file():
        pytest.skip(f"{name} is not among the recorded runs")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dmd_t2v_exit3", "dmd_t2v_batch2_2steps"])
def test_recorded_steps_of_the_reference(golden: Callable[[str], Path], name: str) -> None:
    """Rollout, scores, losses, gradients of both kinds of memory and updates are those of the reference."""
    result = verify_file(recorded(golden, name))
    assert (result.verdict, result.kind) == ("ok", "dmd"), result.note
    assert result.output_error is not None and result.output_error < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["lora_grad.", "detached_lora_grad.", "critic_grad.", "call.13.flow", "dmd.loss"])
def test_a_recorded_step_that_differs_fails(golden: Callable[[str], Path], tmp_path: Path, prefix: str) -> None:
    """Verification fails, and names the tensor, if one recorded tensor is 0.1 % larger."""
    path = tmp_path / "step.safetensors"
    with safe_open(recorded(golden, "dmd_t2v_exit3"), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {**file.metadata(), "weights": str(golden("weights_tiny"))}
    changed = next(name for name in tensors if name.startswith(prefix))
    tensors[changed] = tensors[changed] * 1.001
    save_file(tensors, path, metadata)
    result = verify_file(path)
    assert result.verdict == "failed" and f"{changed} differs" in result.note


def test_the_gradient_is_normalised_for_each_block_and_film() -> None:
    """(fake − real) / mean |x − real| with one mean for each block of each film; 0 / 0 gives 0."""
    generator = torch.Generator().manual_seed(0)
    x, fake, real = torch.randn(3, 2, 4, 4, 2, 2, generator=generator)
    real[1, :, 2:] = fake[1, :, 2:] = x[1, :, 2:]
    gradient = dmd_gradient(x, fake, real, 2)
    for film, block in ((0, 0), (0, 1), (1, 0)):
        rows = slice(2 * block, 2 * block + 2)
        norm = (x - real)[film, :, rows].abs().mean()
        torch.testing.assert_close(gradient[film, :, rows], (fake - real)[film, :, rows] / norm)
    assert not gradient[1, :, 2:].any()
    torch.testing.assert_close(guided(fake, real), real + 4 * (fake - real))
    with pytest.raises(ValueError, match="4 latent frames are not whole blocks of 3"):
        dmd_gradient(x, fake, real, 3)


def test_the_losses_leave_out_given_frames() -> None:
    """½ mean g² in float64 with slope g / n, and the critic's squared error; an image counts in neither."""
    x, gradient, noise = torch.randn(3, 2, 4, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(True)
    loss = generator_loss(x, gradient, first=1)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss.detach(), 0.5 * gradient[:, :, 1:].double().square().mean())
    (slope,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(slope[:, :, 1:], gradient[:, :, 1:] / gradient[:, :, 1:].numel())
    assert not slope[:, :, :1].any()
    flow = noise - x.detach()
    flow[:, :, 0] += 100
    flow[:, :, 1:] += 2
    assert float(critic_loss(flow, noise, x.detach(), first=1)) == pytest.approx(4, rel=1e-5)


def test_timesteps_of_scores() -> None:
    """One timestep for a clip, or that of each block's first frame; all are 1000 · 5 s / (1 + 4 s) within 20 … 980."""
    u = torch.tensor([[0, 999, 500, 1], [999, 3, 250, 7]])
    assert score_timesteps(u, 4, 2)[0].tolist() == pytest.approx([20, 20, 833.3333, 833.3333])
    assert score_timesteps(u, 4, 2)[1].tolist() == pytest.approx([980, 980, 625, 625])
    assert score_timesteps(u[:, 2:3], 4, 2).tolist() == [pytest.approx([833.3333] * 4), pytest.approx([625] * 4)]


def test_the_exit_step_follows_from_seed_and_step() -> None:
    """The exit step is the same in each call, differs between steps, seeds and roles, and takes all values."""
    drawn = [draw_exit_step(1, step, 4) for step in range(200)]
    assert drawn == [draw_exit_step(1, step, 4) for step in range(200)]
    assert drawn != [draw_exit_step(2, step, 4) for step in range(200)]
    assert drawn != [draw_exit_step(1, step, 4, CRITIC) for step in range(200)]
    assert all(30 < drawn.count(step) < 70 for step in range(4))


@pytest.mark.parametrize("form", ["plain", "teacher_forced"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_role_trains_its_own_lora(tiny: Tiny, form: Any, checkpointing: bool) -> None:  # noqa: ANN401
    """The loss of a role depends on its step and part only, and reaches its own LoRA only."""
    dmd = stage(tiny, replace(SETTINGS, score_form=form, checkpointing=checkpointing))
    modules = {trained.name: trained.module for trained in dmd.trained}
    for name in (GENERATOR, CRITIC):
        for module in modules.values():
            module.zero_grad()
        loss = dmd.loss(name, 4, 1)
        loss.value.backward()
        for role, module in modules.items():
            assert all((p.grad is not None) == (role == name) for p in module.parameters())
        assert float(dmd.loss(name, 4, 1).value.detach()) == float(loss.value.detach())
        assert float(dmd.loss(name, 4, 0).value.detach()) != float(loss.value.detach())
    base = dmd.roles.real.activate().state_dict()
    for name, value in tiny.model.state_dict().items():
        layer, _, part = name.rpartition(".")
        assert torch.equal(base.get(name, base.get(f"{layer}.base_layer.{part}", torch.empty(0))), value)


def test_the_image_of_a_clip_is_no_part_of_the_loss(tiny: Tiny) -> None:
    """Image to video: scores see the image without noise at t = 0, and losses leave it out."""
    dmd = stage(tiny)
    batch = dmd._clips.batch(np.random.default_rng(0))  # pyright: ignore[reportPrivateUsage]
    image = torch.randn(2, 4, 1, 4, 6, generator=torch.Generator().manual_seed(5))
    given: Batch = replace(batch, image=image)
    draws = draw(LatentShape(2, 4, 6, 4, 6), 1, torch.Generator().manual_seed(1), each_block=True)
    step = generator_step(dmd.roles, SETTINGS.rollout, SETTINGS.scores, given, draws)
    assert torch.equal(step.noisy[:, :, :1], image) and torch.equal(step.rollout[:, :, :1], image)
    assert (
        not step.t[:, 0].any()
        and torch.equal(step.t[:, 2], step.t[:, 3])
        and bool((step.t[:, 1] != step.t[:, 2]).all())
    )
    expected = 0.5 * step.gradient[:, :, 1:].double().square().mean()
    torch.testing.assert_close(step.loss.detach(), expected)
    critic = critic_step(dmd.roles, SETTINGS.rollout, SETTINGS.scores, given, draws)
    error = critic.flow - (draws.score_noise - critic.rollout)
    torch.testing.assert_close(critic.loss.detach(), error[:, :, 1:].square().mean())
    assert isinstance(dmd.roles, Roles)


@pytest.mark.slow
def test_a_run_resumes_to_the_bit(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stopped within a step goes on with the losses of one that did not; the generator is every second."""
    monkeypatch.setattr(trainer_module, "save_plot", lambda *_: None)
    settings = TrainerSettings(steps=4, seed=3, save_every=1, accumulation=2)
    assert Trainer(stage(tiny), settings, tmp_path / "whole").run()
    asked = iter(range(1000))
    stopped = Trainer(stage(tiny), settings, tmp_path / "parts", should_stop=lambda: next(asked) >= 7)
    assert not stopped.run()
    assert Trainer(stage(tiny), settings, tmp_path / "parts").run()
    logs = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in TrainingLog(tmp_path / name).lines()]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 4
    assert [f"{GENERATOR}.loss" in line for line in logs[0]] == [True, False, True, False]
    assert all(f"{CRITIC}.loss" in line for line in logs[0])


def test_the_lora_of_a_run_has_its_card(tiny: Tiny, tmp_path: Path) -> None:
    """The saved LoRA is read by our loader, and says its base, data, updates, sampler steps and RoPE offset."""
    dmd, path = stage(tiny, replace(SETTINGS, rope_offset=4.0)), tmp_path / "lora.safetensors"
    save_lora(path, dmd.weights, dmd.lora, dmd.card(5, "tiny", "words"))
    assert read_card(open_source(path).metadata) == LoraCard("tiny", "words", 3, 2, 4.0)
    assert len(read_lora(path).layers) == 20


def test_settings_that_do_not_fit_are_refused_before_work(tiny: Tiny, tmp_path: Path) -> None:
    """Another rank to go on from, a short window, an unknown format and a rank of 0 raise one clear error."""
    path = tmp_path / "lora.safetensors"
    save_lora(path, stage(tiny).weights, LoraSettings(2, 2.0), LoraCard("tiny", "", 1, 2, 0.0))
    stage(tiny, start=path)
    with pytest.raises(CheckpointError, match="has rank 2 and alpha 2, but this run trains rank 4 and alpha 2"):
        stage(tiny, replace(SETTINGS, rank=4), start=path)
    with pytest.raises(ValueError, match="window 4 is too short"):
        stage(tiny, replace(SETTINGS, window=4))
    with pytest.raises(ValueError, match="kv_format 'int3' is not available"):
        stage(tiny, replace(SETTINGS, kv_format="int3"))
    with pytest.raises(ValueError, match="rank"):
        replace(SETTINGS, rank=0)
    with pytest.raises(ValueError, match="at least one block"):
        PlanClips([], tiny.text, "N")
