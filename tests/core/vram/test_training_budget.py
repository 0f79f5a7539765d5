"""The plan of a LoRA's training: it covers what a traced step takes, and its table, verdict and advice add up."""

from __future__ import annotations

import argparse
import re
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from longlive.longlive_core.cli.plan import add_arguments, plan_text
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.training.ar import ar_step
from longlive.longlive_core.training.ar_inputs import ARBatch, ar_inputs, random_draws
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.lora import LoraSettings, add_adapter
from longlive.longlive_core.training.schedule import TimestepTable
from longlive.longlive_core.units import GIB
from longlive.longlive_core.vram.advice import choose
from longlive.longlive_core.vram.training_budget import TrainingBudget, lora_numbers
from longlive.longlive_core.vram.training_planner import plan_training
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

MODEL = WanConfig(dim=384, ffn_dim=1792, num_heads=3, num_layers=2, freq_dim=64, text_dim=384, text_len=64, channels=48)
WAN = TrainingBudget(24 * GIB, (512, 512), frames=65, shots=3)


class LiveBytes(TorchDispatchMode):
    """Records the peak of the bytes of tensors that operations make, apart from those of `known` tensors."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self._known = known
        self._sizes = {value.untyped_storage()._cdata: 0 for value in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if (
                isinstance(value, torch.Tensor)
                and (key := (storage := value.untyped_storage())._cdata) not in self._sizes
            ):
                self._sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, key)
        self.peak = max(self.peak, self.now)
        return result

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def traced(model: WanConfig, blocks: int, rank: int, checkpointing: bool) -> int:
    """Peak bytes of a step in bf16, without weights, gradients and moments."""
    wan = CausalWan(model).to(torch.bfloat16)
    weights = add_adapter(wan, "lora", LoraSettings(rank, rank))
    for parameter in weights.parameters():
        parameter.grad = torch.zeros_like(parameter)
    frames = 8 * blocks
    batch = ARBatch(
        torch.randn(1, 48, frames, 8, 8),
        torch.randn(1, model.text_len, model.text_dim),
        torch.zeros(1, blocks).long(),
        torch.arange(frames).float(),
        (False,) * blocks,
    )
    settings, table = ARSettings(window=32, checkpointing=checkpointing), TimestepTable.shifted()
    inputs = ar_inputs(batch, random_draws(batch, settings, table, torch.Generator()), settings, table)
    gradients = [p.grad for p in weights.parameters() if p.grad is not None]
    with LiveBytes([*wan.state_dict().values(), *gradients, batch.clean, batch.text]) as live:
        with torch.autocast("cpu", torch.bfloat16):
            loss = ar_step(wan, batch, inputs, settings).loss
        loss.backward()
    return live.peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "blocks", "rank", "checkpointing"),
    [
        (MODEL, 3, 8, True),
        (MODEL, 6, 8, True),
        (replace(MODEL, num_layers=4), 1, 16, True),
        (replace(MODEL, dim=768, num_heads=6), 2, 8, True),
        (replace(MODEL, num_layers=3), 3, 8, False),
    ],
)
def test_the_plan_covers_a_traced_step(model: WanConfig, blocks: int, rank: int, checkpointing: bool) -> None:
    """The parts that hold activations are what a step takes, and up to a quarter more."""
    budget = TrainingBudget(
        GIB, (128, 128), 4 * (8 * blocks - 1) + 1, rank=rank, checkpointing=checkpointing, model=model, overhead=0
    )
    fixed = ("base", "LoRA", "moments")
    planned = sum(part.bytes for part in budget.parts if not part.name.startswith(fixed))
    planned += 2 * lora_numbers(model, rank)  # the weights cast to bf16
    assert 1.0 <= planned / traced(model, blocks, rank, checkpointing) <= 1.25


def test_a_lora_has_the_planned_numbers() -> None:
    """The weights of an adapter are counted to the number."""
    weights = add_adapter(CausalWan(MODEL, device="meta"), "lora", LoraSettings(8, 8))
    assert sum(p.numel() for p in weights.parameters()) == lora_numbers(MODEL, 8)


def test_shots_are_whole_blocks() -> None:
    """65 frames are three blocks, of one shot or of three; four shots are four blocks."""
    assert [TrainingBudget(1, (512, 512), frames=n).blocks for n in (1, 29, 30, 61, 65, 93)] == [1, 1, 2, 2, 3, 3]
    assert [replace(WAN, shots=shots).blocks for shots in (1, 3, 4)] == [3, 3, 4]
    assert [replace(WAN, shots=shots).prompts for shots in (1, 2, 3)] == [1, 3, 3]
    assert WAN.tokens == 5 * 8 * 16 * 16


@pytest.mark.parametrize("weights", ["nvfp4", "fp8"])
def test_a_card_of_24_gb_trains_three_shots(weights: str) -> None:
    """Rank 32 at 512x512, 65 frames and three shots fit a card of 24 GB with an NVFP4 or fp8 base."""
    assert replace(WAN, weights=weights).fits


def test_every_setting_has_its_price() -> None:
    """What saves memory saves it, and what is in host memory is not on the card."""
    for change in (
        {"offload": True},
        {"weights": "fp8"},
        {"weights": "nvfp4"},
        {"rank": 16},
        {"size": (384, 384)},
        {"frames": 29, "shots": 1},
    ):
        assert replace(WAN, **change).total < WAN.total, change
    for change in ({"checkpointing": False}, {"clips": 2}, {"shots": 4}, {"rank": 128}):
        assert replace(WAN, **change).total > WAN.total, change
    saved = WAN.total - replace(WAN, offload=True).total
    assert saved == 8 * lora_numbers(WAN.model, 32)
    assert replace(WAN, loaded=1).total == WAN.total - WAN.parts[0].bytes + 1


def test_the_plan_takes_the_best_that_fits() -> None:
    """The best format of the base is taken, then the moments move; otherwise advice says what is enough."""
    assert plan_training(WAN).budget.weights == "bf16"
    small = plan_training(replace(WAN, vram=16 * GIB))
    assert small.budget.fits and small.budget.weights != "bf16" and small.advice == ()
    tiny = plan_training(replace(WAN, vram=8 * GIB))
    assert (tiny.budget.weights, tiny.budget.offload, tiny.budget.fits) == ("nvfp4", True, False)
    assert any(item.fits for item in tiny.advice)
    kept = plan_training(replace(WAN, vram=8 * GIB), weights="bf16", offload=False)
    assert (kept.budget.weights, kept.budget.offload) == ("bf16", False)
    assert "nvfp4 base" in " ".join(item.change for item in kept.advice)
    loaded = replace(WAN, vram=8 * GIB, loaded=3 * 10**9, checkpointing=False)
    changes = " ".join(item.change for item in choose(loaded, list(loaded.changes())))
    assert "base" not in changes and "checkpointing" in changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank 0 must be at least 1"),
        ({"frames": 0}, "frames 0 must be at least 1"),
        ({"shots": 0}, "shots 0 must be at least 1"),
        ({"weights": "int8"}, "weights 'int8' is not known"),
        ({"size": (500, 512)}, "height 500 and width 512 must be positive multiples of 32"),
    ],
)
def test_impossible_runs_are_refused(change: dict[str, Any], message: str) -> None:
    """An error has the value and the remedy."""
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(WAN, **change)


def test_the_command_prints_a_table_that_adds_up() -> None:
    """`longlive plan --train`: the resident parts sum up to the peak, and the verdict follows."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["--train", "--vram", "12GB", "--size", "512x512", "--frames", "65", "--shots", "3", "--rank", "32"]
    text = plan_text(parser.parse_args(words))
    assert "1 clip of 65 frames in 3 shots: 3 blocks, 93 frames, 10240 tokens a pass" in text
    parts = [float(row[1]) for row in re.findall(r"(?m)^(.+?) +(\d+\.\d\d)  resident$", text)]
    peak, card = map(float, re.findall(r"peak on the card +(\S+)  of (\S+)", text)[0])
    assert abs(sum(parts) - peak) < 0.01 * len(parts) and card == 12.88
    assert ("It fits" in text) == (peak <= card)
