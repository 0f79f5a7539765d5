"""Stages that train for NVFP4: memory as it is served, noise from (seed, step, part), and roles that round."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.memory import FilmKVCache
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.model.linears import linear_layers
from longlive.longlive_core.model.nvfp4_products import NVFP4Settings
from longlive.longlive_core.model.nvfp4_training import NVFP4TrainingLinear
from longlive.longlive_core.training import trainer as trainer_module
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.ar_stage import ARStage
from longlive.longlive_core.training.captions import vocabulary
from longlive.longlive_core.training.clips import PlanClips
from longlive.longlive_core.training.dmd import CRITIC, GENERATOR
from longlive.longlive_core.training.dmd_stage import DMDSettings, DMDStage
from longlive.longlive_core.training.mini_stage import MiniSettings, MiniStage
from longlive.longlive_core.training.stage import OptimiserSettings, Stage
from longlive.longlive_core.training.teacher_forcing import teacher_forced_flow
from longlive.longlive_core.training.toml_settings import read_settings
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from longlive.longlive_core.types import LatentShape
from torch import Tensor

from ..conftest import Tiny
from .test_ar import Films
from .toy_mini import TINY_DIT, TINY_VAE, random_films

BLOCKS, PROMPTS = 4, "0 1 2 0"
WIDE = replace(TINY_DIT, dim=64, ffn_dim=64)
AR = ARSettings(block_frames=2, sink=2, kv_format="nvfp4", nvfp4=NVFP4Settings())
DMD = DMDSettings(
    steps=2, size=(4, 6), block_frames=2, rank=2, alpha=2.0, window=8, sink=2, kv_format="nvfp4", nvfp4=NVFP4Settings()
)


@pytest.fixture(scope="module")
def wide() -> Tiny:
    """A random model whose heads are 32 wide, as NVFP4 memory needs them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = WanConfig(
            dim=64, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4
        )
        return Tiny(CausalWan(config).requires_grad_(False))


def ar_stage(wide: Tiny, settings: ARSettings = AR, seed: int = 11) -> ARStage:
    return ARStage(deepcopy(wide.model).requires_grad_(True), Films(), settings, OptimiserSettings(1e-3), seed)


def mini_stage(settings: NVFP4Settings | None = None) -> MiniStage:
    mini = Mini.random(0, vocabulary(), WIDE, TINY_VAE)
    # The flow of an untrained model is zero, and so are the gradients of its blocks.
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    small = MiniSettings(singles=2, film_blocks=8, warmup=2, nvfp4=settings or NVFP4Settings(), kv_format="nvfp4")
    return MiniStage(mini, random_films(), torch.eye(48), small)


def dmd_stage(wide: Tiny, settings: DMDSettings = DMD) -> DMDStage:
    return DMDStage(deepcopy(wide.model), PlanClips([wide.plan("A A |B")], wide.text, "N", batch=1), settings, 3)


def gradients(stage: Stage, name: str, step: int, part: int) -> list[Tensor]:
    """The gradients of a loss, of one trained module."""
    (module,) = (trained.module for trained in stage.trained if trained.name == name)
    module.zero_grad()
    stage.loss(name, step, part).value.backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("kv_format", ["nvfp4", "fp8"])
def test_memory_trains_as_it_is_served(wide: Tiny, kv_format: str) -> None:
    """The flow of teacher forcing with a format of the memory is that of the KV cache with this format."""
    generator = torch.Generator().manual_seed(1)
    clean, noisy = torch.randn(2, 1, 4, 2 * BLOCKS, 4, 6, generator=generator)
    t = torch.rand(1, BLOCKS, generator=generator).mul(1000).repeat_interleave(2, dim=-1)
    text, positions = torch.randn(3, 4, 16, generator=generator), torch.arange(2 * BLOCKS)
    prompts = torch.tensor([[int(word) for word in PROMPTS.split()]])

    def forced(kv_format: str | None) -> Tensor:
        return teacher_forced_flow(
            wide.model, clean, noisy[:, None], t[:, None], text, prompts, positions, 2, kv_format=kv_format
        )[:, 0]

    memory = wide.memory(window=2 * BLOCKS, kv_format=kv_format)
    shape = LatentShape(1, 4, 2, 4, 6)
    cache = FilmKVCache(wide.model, memory, shape, BLOCKS, lambda name: text[int(name)], torch_attention)
    flow, exact = forced(kv_format), forced(None)
    for block in wide.plan(PROMPTS).blocks:
        rows = slice(block.start, block.start + 2)
        cache.begin(block)
        (own, kv), *_ = cache.calls(block, clean=False)
        served = wide.model(noisy[:, :, rows], t[:, rows], own, kv, positions[rows])
        torch.testing.assert_close(flow[:, :, rows], served, rtol=1e-4, atol=1e-5)
        (own, kv), *_ = cache.calls(block, clean=True)
        wide.model.write_kv(clean[:, :, rows], torch.zeros(1, 2), own, kv, positions[rows])
        cache.end(block)
    assert torch.allclose(flow[:, :, :2], exact[:, :, :2]) and not torch.equal(flow[:, :, 2:], exact[:, :, 2:])


def test_the_gradient_passes_through_the_memory(wide: Tiny) -> None:
    """The keys and values of earlier blocks get nearly the gradients that exact memory gives them."""
    exact, rounded = (
        gradients(ar_stage(wide, replace(AR, kv_format=kv, nvfp4=None)), "model", 0, 0) for kv in (None, "nvfp4")
    )
    pairs = [(a, b) for a, b in zip(exact, rounded, strict=True) if a.any()]
    assert all(0 < float((a - b).norm()) < 0.5 * float(a.norm()) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ar", "mini", GENERATOR, CRITIC])
def test_gradients_depend_on_seed_step_and_part_only(wide: Tiny, kind: str) -> None:
    """A gradient with stochastic rounding is the same whenever it is computed, and that of another part is another."""
    stage: Stage = {"ar": lambda: ar_stage(wide), "mini": mini_stage}.get(kind, lambda: dmd_stage(wide))()
    name = "model" if kind in ("ar", "mini") else kind
    first = gradients(stage, name, 2, 0)
    other = gradients(stage, name, 2, 2)
    again = gradients(stage, name, 2, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stopped within a step ends in the weights of one that did not, whose names are those of the model."""
    monkeypatch.setattr(trainer_module, "save_plot", lambda *_: None)
    settings = TrainerSettings(steps=2, accumulation=2)
    whole, first, second = (mini_stage() for _ in range(3))
    assert Trainer(whole, settings, tmp_path / "whole").run()
    asked = iter(range(100))
    assert not Trainer(first, settings, tmp_path / "parts", should_stop=lambda: next(asked) >= 3).run()
    assert Trainer(second, settings, tmp_path / "parts").run()
    states = [stage.mini.model.state_dict() for stage in (whole, second)]
    assert states[0].keys() == CausalWan(WIDE, device="meta").state_dict().keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_checkpointing_changes_no_gradient(wide: Tiny) -> None:
    """Activations that are computed again are rounded as before."""
    plain, again = (gradients(ar_stage(wide, replace(AR, checkpointing=flag)), "model", 0, 0) for flag in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_generator_and_teacher_round_and_the_critic_does_not(wide: Tiny) -> None:
    """Of the roles that share a base, the critic runs in float, as in LongLive 2.0; the LoRAs are float in all."""
    stage = dmd_stage(wide)
    layers = [part for part in stage.roles.real.model.modules() if isinstance(part, NVFP4TrainingLinear)]
    assert len(layers) == 20
    for role, enabled in ((stage.roles.generator, True), (stage.roles.critic, False), (stage.roles.real, True)):
        role.activate()
        assert {layer.enabled for layer in layers} == {enabled}
    names = {type(layer).__name__ for name, layer in linear_layers(stage.roles.real.model).items() if "lora" in name}
    assert names == {"Linear"}


def test_a_loss_of_a_distillation_differs_by_rounding(wide: Tiny) -> None:
    """NVFP4 changes the generator's loss by its rounding, and not the critic's clips beyond it."""
    rounded, exact = dmd_stage(wide), dmd_stage(wide, replace(DMD, nvfp4=None))
    for name in (GENERATOR, CRITIC):
        a, b = (float(stage.loss(name, 0, 0).value.detach()) for stage in (rounded, exact))
        assert a != b and a == pytest.approx(b, rel=0.5)


def test_models_that_do_not_fit_are_refused_before_work(wide: Tiny) -> None:
    """A width that NVFP4 cannot hold is named when the stage is made."""
    narrow = Mini.random(0, vocabulary(), replace(TINY_DIT, dim=24), TINY_VAE)
    with pytest.raises(ValueError, match=r"blocks\.0\.self_attn\.q has input width 24, .*multiples of 16; train this"):
        MiniStage(narrow, random_films(), torch.eye(48), MiniSettings(nvfp4=NVFP4Settings()))
    with pytest.raises(ValueError, match="kv_format 'nvfp5' is not available; choose one of bf16"):
        replace(AR, kv_format="nvfp5")
    with pytest.raises(ValueError, match="nvfp4: rounding = 'up' must be one of unbiased, reference, nearest"):
        NVFP4Settings(rounding="up")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match="nvfp4: weights = 'mse2' must be one of static_6, static_4, mse, mae, abs_max"
    ):
        NVFP4Settings(weights="mse2")  # pyright: ignore[reportArgumentType]
    assert wide.model.dtype == torch.float32


def test_a_settings_file_turns_it_on(tmp_path: Path) -> None:
    """An empty table is the defaults; a rule that does not exist is named with the known ones."""
    path = tmp_path / "ar.toml"
    path.write_text('[ar]\nkv_format = "nvfp4"\n[ar.nvfp4]\nweights = "mse"\n', "utf-8")
    from longlive.longlive_core.training.settings import ARRun, DMDRun

    run = read_settings(ARRun, path)
    assert run.ar.nvfp4 == NVFP4Settings(weights="mse") and run.ar.kv_format == "nvfp4"
    path.write_text("[dmd.nvfp4]\n", "utf-8")
    assert read_settings(DMDRun, path).dmd.nvfp4 == NVFP4Settings()
    assert ARRun().ar.nvfp4 is None and DMDRun().dmd.nvfp4 is None
    path.write_text('[ar.nvfp4]\nrounding = "up"\n', "utf-8")
    with pytest.raises(ValueError, match=r"'ar.nvfp4.rounding' = \"up\" must be one of \"unbiased\", \"reference\""):
        read_settings(ARRun, path)
