"""Several LoRAs act as their sum: beside layers of every format, and merged by a conversion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.weights import LoraFile, convert_checkpoint, load_checkpoint, read_lora
from safetensors.torch import save_file
from torch import Tensor, nn

FORMATS = ("bf16", "fp8", "nvfp4")
# Relative error of an output of normally distributed inputs, by the format of the weights.
COSTS = {"bf16": 0.004, "fp8": 0.04, "nvfp4": 0.15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mini's transformer in each format, and three LoRAs."""
    folder, mini = tmp_path_factory.mktemp("stacks"), load_mini().model
    save_file({n: t.contiguous() for n, t in mini.state_dict().items()}, folder / "fp32.safetensors")
    for form in FORMATS:
        convert_checkpoint(folder / "fp32.safetensors", folder / f"{form}.safetensors", format=form, causal=True)
    for seed, name in enumerate("ABC"):
        draw = torch.Generator().manual_seed(seed)
        halves = {
            f"{n}.lora_{half}.weight": torch.randn(*shape, generator=draw) * 0.1
            for n, m in linears().items()
            for half, shape in (("A", (4, m.in_features)), ("B", (m.out_features, 4)))
        }
        save_file(halves, folder / f"{name}.safetensors")
    return folder


def linears() -> dict[str, nn.Linear]:
    modules = load_mini().model.named_modules()
    return {n: m for n, m in modules if isinstance(m, nn.Linear) and n.startswith("blocks.")}


def output_error(model: nn.Module, loras: list[LoraFile]) -> float:
    """Relative error of the layers' outputs against W + A + B merged in float32."""
    draw, error, size = torch.Generator().manual_seed(9), 0.0, 0.0
    changes = [(read_lora(lora.path), lora.strength) for lora in loras]
    for name, layer in linears().items():
        weight: Tensor = layer.weight.detach()
        for lora, strength in changes:
            weight = lora.layers[name].merged(weight, strength)
        x = torch.randn(32, layer.in_features, generator=draw)
        truth = nn.functional.linear(x, weight, layer.bias.detach())
        error += (model.get_submodule(name)(x) - truth).square().sum().item()
        size += truth.square().sum().item()
    return (error / size) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("how", ["beside", "merged"])
def test_a_stack_has_the_error_of_one(folder: Path, tmp_path: Path, form: str, how: str) -> None:
    """Two and three LoRAs with strengths of their own are as near to their sum as one is to itself."""
    errors: list[float] = []
    for texts in (["A"], ["A:0.8", "B:-0.5"], ["A", "B:0.7", "C:1.2"]):
        named = [text.replace(text[0], str(folder / f"{text[0]}.safetensors")) for text in texts]
        loras = [LoraFile.parse(text, None) for text in named]
        if how == "merged":
            target = tmp_path / f"{len(texts)}.safetensors"
            convert_checkpoint(folder / "fp32.safetensors", target, format=form, loras=loras, causal=True)
            model = load_checkpoint(target, dtype=torch.float32)
        else:
            model = load_checkpoint(folder / f"{form}.safetensors", dtype=torch.float32)
            reports = [read_lora(lora.path).add_bypass(model, lora.strength) for lora in loras]
            assert all(report.text().startswith("60 of 60 layers; rank 4, alpha 4") for report in reports)
        errors.append(output_error(model, loras))
    assert max(errors) < COSTS[form]
    assert max(errors) < 1.3 * errors[0]
