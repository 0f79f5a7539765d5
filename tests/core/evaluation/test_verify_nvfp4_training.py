"""Verification of recorded layers of NVFP4 training: the recorded one agrees, and an altered number is found.

The reference's file is not in the repository. So one of its form is made here, with our own operands, whose formulas
are tested where they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.kernels import hadamard16, quantize_nvfp4_stochastic
from longlive.longlive_core.evaluation.recorded import TRAINING_FORMAT, RecordedRun
from longlive.longlive_core.evaluation.verify import verify_file
from longlive.longlive_core.model.nvfp4_products import SIGNS, NVFP4Products, NVFP4Settings, Operand, multiply
from longlive.longlive_core.model.nvfp4_training import RoundingNoise
from safetensors.torch import save_file
from torch import Tensor

OPERANDS = {
    "fprop.weight": 1,
    "fprop.input": 0,
    "dgrad.dy": 0,
    "dgrad.weight_t": 1,
    "wgrad.dy_t": 0,
    "wgrad.input_t": 0,
}
RULES = {"activation_scale_rule": "mse", "weight_scale_rule": "static_6", "gradient_scale_rule": "mse"}


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Path:
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path, text)
    return path


def parts(name: str, operand: Operand) -> dict[str, Tensor]:
    """What a file holds of an operand."""
    packed = operand.packed
    return {
        f"{name}.values": packed.values,
        f"{name}.scales_2d": packed.scales.view(torch.uint8),
        f"{name}.amax": packed.amax.reshape(1),
        f"{name}.dequant": operand.dequantized(),
    }


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a recorded layer of 32 inputs and 48 outputs, on 2 × 16 tokens."""
    generator = torch.Generator().manual_seed(0)
    x, dy, weight, bias = (
        torch.randn(shape, generator=generator).bfloat16() for shape in ((2, 16, 32), (2, 16, 48), (48, 32), (48,))
    )
    tensors = {"x": x, "dy": dy, "weight": weight, "bias": bias}
    tensors["rht16"] = hadamard16(torch.eye(16).bfloat16(), torch.tensor(SIGNS).float())
    products, noise = NVFP4Products(NVFP4Settings(rounding="nearest")), RoundingNoise()
    rows, outputs = dy.flatten(0, 1), products.input(x.flatten(0, 1))
    left, right = (
        products.gradient(products.over_tokens(rows), noise),
        products.input(products.over_tokens(outputs.saved_input())),
    )
    operands = {
        "fprop.weight": products.weight(weight),
        "fprop.input": outputs,
        "dgrad.dy": products.gradient(rows, noise),
        "dgrad.weight_t": products.weight(weight.t()),
        "wgrad.dy_t": left,
        "wgrad.input_t": right,
    }
    for name, operand in operands.items():
        tensors |= parts(f"ar.{name}", operand)
    tensors |= {
        "ar.saved_input_dequant": outputs.saved_input(),
        "ar.y": (multiply(outputs, operands["fprop.weight"]) + bias).view(2, 16, 48),
        "ar.dx": multiply(operands["dgrad.dy"], operands["dgrad.weight_t"]).view(2, 16, 32),
        "ar.dw": multiply(left, right),
        "ar.db": dy.sum(0).sum(0),
        "sr.u": torch.rand(32, 48, generator=generator),
    }
    packed = quantize_nvfp4_stochastic(rows, tensors["sr.u"], "static_6", unbiased=False, swizzled=False)
    tensors |= parts("sr.static_6", Operand(packed, (32, 48), False))
    order = [
        {"op": op, "block_scale_2d": bool(tiles), "transpose": op.endswith("_t"), "rht": op.startswith("wgrad")}
        for op, tiles in OPERANDS.items()
    ]
    run = {"rules": {"ar": RULES}, "gradient_round_style": "nearest"}
    return tensors, {"format": TRAINING_FORMAT, "kind": "nvfp4_linear", "run": run, "order": {"ar": order}}


def test_the_recorded_layer_agrees(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """Operands of the reference are met to the bit, and its results to a step of bf16; a changed code is found."""
    path = golden("weights_tiny").parent / "train" / "nvfp4_linear.safetensors"
    if not path.is_file():
        pytest.skip("nvfp4_linear is not here: set LONGLIVE_GOLDEN to the whole set of recorded runs")
    result = verify_file(path)
    assert (result.verdict, result.kind) == ("ok", "nvfp4_linear"), result.note
    case = RecordedRun.load(path)
    case.tensors["mse.wgrad.dy_t.values"][0, 0] ^= 1
    result = verify_file(save(tmp_path / "altered.safetensors", case.tensors, case.metadata))
    assert result.verdict == "failed" and "mse.wgrad.dy_t.values: 1 of 16384 differ" in result.note


def test_a_layer_of_the_same_form_agrees(made: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path) -> None:
    """Shapes, rules and the matrix of the transform are those of the file."""
    result = verify_file(save(tmp_path / "made.safetensors", *made))
    assert result.verdict == "ok" and result.note.startswith("28 tensors of operands"), result.note


@pytest.mark.parametrize(
    "name",
    [
        "rht16", "ar.saved_input_dequant", "ar.fprop.weight.values", "ar.fprop.input.scales_2d", "ar.dgrad.dy.amax",
        "ar.dgrad.weight_t.dequant", "ar.wgrad.dy_t.values", "ar.wgrad.input_t.scales_2d", "sr.static_6.values",
        "ar.y", "ar.dx", "ar.dw", "ar.db",
    ],
)  # fmt: skip
def test_an_altered_number_is_found(made: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path, name: str) -> None:
    """One number that differs, a result by three steps of bf16, is named."""
    tensors, metadata = made
    value = tensors[name].clone()
    flat = value.view(-1)
    index = int(flat.float().abs().argmax())
    flat[index] = flat[index] ^ 1 if value.dtype == torch.uint8 else flat[index] * 1.03
    result = verify_file(save(tmp_path / "altered.safetensors", {**tensors, name: value}, metadata))
    assert result.verdict == "failed" and name in result.note


def test_what_the_layer_does_not_do_is_said(made: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path) -> None:
    """Another order of operations fails with the operand; gradients with unknown random numbers are skipped."""
    tensors, metadata = made
    order = [{**step, "block_scale_2d": False} for step in metadata["order"]["ar"]]
    result = verify_file(save(tmp_path / "rows.safetensors", tensors, {**metadata, "order": {"ar": order}}))
    assert result.verdict == "failed" and "ar.fprop.weight: supported are scales of 16×16 tiles" in result.note
    run = {**metadata["run"], "gradient_round_style": "stochastic"}
    result = verify_file(save(tmp_path / "random.safetensors", tensors, {**metadata, "run": run}))
    assert result.verdict == "skipped" and "rounded stochastically" in result.note
    missing = {name: value for name, value in tensors.items() if name != "ar.dw"}
    result = verify_file(save(tmp_path / "missing.safetensors", missing, metadata))
    assert result.verdict == "failed" and "the file has no 'ar.dw'" in result.note
