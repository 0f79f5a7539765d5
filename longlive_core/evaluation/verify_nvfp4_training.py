"""Verification of a recorded linear layer of NVFP4 training: its quantised operands, its output and its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import NVFP4, hadamard16, quantize_nvfp4_stochastic
from ..model.nvfp4_products import NVFP4Products, NVFP4Settings, Operand
from ..model.nvfp4_training import NVFP4TrainingLinear, RoundingNoise
from .recorded import RecordedRun, relative_error
from .result import Result, compared, skipped
from .verify_training import Comparison

# Spacing of bf16 relative to the power of two at or below a number.
BF16_STEP = 2.0**-7
# What the order of a float32 sum may change, relative to the sum of the magnitudes of its terms.
SUM_ERROR = 2.0**-20
RESULTS = ("y", "dx", "dw", "db")


def verify_nvfp4_linear(recorded: RecordedRun) -> Result:
    """Compares operands to the bit, and output and gradients to a bf16 step; see the README of the recorded runs."""
    run, tensors = recorded.metadata["run"], recorded.tensors
    if run.get("gradient_round_style", "nearest") != "nearest":
        return skipped(recorded, "gradients are rounded stochastically, and the file does not say how for each layer")
    comparison, errors = Comparison(), dict[str, float]()
    signs = _signs(comparison, tensors["rht16"])
    for name, rules in run["rules"].items():
        products = NVFP4Products(_settings(recorded, name, rules), signs)
        _compare_operands(comparison, recorded, name, products)
        for result, error in _compare_results(comparison, recorded, name, products):
            errors[result] = max(error, errors.get(result, 0.0))
    _compare_stochastic(comparison, recorded)
    exact = sum(name.endswith((".values", ".scales_2d", ".amax", ".dequant")) for name in comparison.errors)
    note = f"{exact} tensors of operands compared to the bit; {', '.join(errors)} within a bf16 step"
    note = "; ".join((*comparison.faults, note))
    worst = max(error for result, error in errors.items() if result != "y")
    return compared(recorded, not comparison.faults, errors["y"], worst, None, BF16_STEP, note)


def _signs(comparison: Comparison, matrix: Tensor) -> tuple[int, ...]:
    """The signs of a recorded Hadamard matrix `[16, 16]`, which is compared to the bit with ours."""
    signs = matrix[:, 0].sign()
    comparison.add_bits("rht16", hadamard16(torch.eye(16, dtype=matrix.dtype), signs), matrix)
    return tuple(int(sign) for sign in signs)


def _settings(recorded: RecordedRun, name: str, rules: dict[str, str]) -> NVFP4Settings:
    """The settings of a set of rules. Raises ValueError for an order of operations that the layer does not have."""
    order: dict[str, dict[str, Any]] = {step["op"]: step for step in recorded.metadata["order"][name]}
    for op, step in order.items():
        if bool(step["block_scale_2d"]) != ("weight" in op) or bool(step["transpose"]) != op.endswith("_t"):
            raise ValueError(f"{name}.{op}: supported are scales of 16×16 tiles for weights, and of rows for the rest")
    settings: dict[str, Any] = {
        part: rules[f"{key}_scale_rule"]
        for part, key in (("weights", "weight"), ("activations", "activation"), ("gradients", "gradient"))
    }
    return NVFP4Settings(**settings, rounding="nearest", hadamard=bool(order["wgrad.dy_t"]["rht"]))


def _compare_operands(comparison: Comparison, recorded: RecordedRun, name: str, products: NVFP4Products) -> None:
    tensors = recorded.tensors
    x, dy, weight = (tensors[part] for part in ("x", "dy", "weight"))
    x, dy, noise = x.flatten(0, -2), dy.flatten(0, -2), RoundingNoise()
    saved = products.input(x)
    comparison.add_bits(f"{name}.saved_input_dequant", saved.saved_input(), tensors[f"{name}.saved_input_dequant"])
    operands = {
        "fprop.weight": products.weight(weight),
        "fprop.input": saved,
        "dgrad.dy": products.gradient(dy, noise),
        "dgrad.weight_t": products.weight(weight.t()),
        "wgrad.dy_t": products.gradient(products.over_tokens(dy), noise),
        "wgrad.input_t": products.input(products.over_tokens(saved.saved_input())),
    }
    for operand, ours in operands.items():
        _compare_operand(comparison, recorded, f"{name}.{operand}", ours)


def _compare_operand(comparison: Comparison, recorded: RecordedRun, name: str, ours: Operand) -> None:
    parts = {
        "values": ours.packed.values,
        "scales_2d": ours.packed.scales.view(torch.uint8),
        "amax": ours.packed.amax.reshape(1),
        "dequant": ours.dequantized(),
    }
    for part, value in parts.items():
        comparison.add_bits(f"{name}.{part}", value, recorded.tensors[f"{name}.{part}"])


def _compare_results(
    comparison: Comparison, recorded: RecordedRun, name: str, products: NVFP4Products
) -> Iterator[tuple[str, float]]:
    """Runs the layer and compares what comes out of it; yields the relative errors."""
    tensors = recorded.tensors
    outputs, inputs = tensors["weight"].shape
    linear = nn.Linear(inputs, outputs, device="meta")
    linear.weight, linear.bias = (nn.Parameter(tensors[part].clone()) for part in ("weight", "bias"))
    layer, x = NVFP4TrainingLinear(linear, products, RoundingNoise()), tensors["x"].clone().requires_grad_()
    with torch.enable_grad():
        y = layer(x)
        y.backward(tensors["dy"])
    values = dict(zip(RESULTS, (y.detach(), x.grad, layer.weight.grad, layer.bias.grad), strict=True))
    sums = _magnitudes(recorded, name)
    for result, value in values.items():
        expected = tensors[f"{name}.{result}"]
        assert value is not None
        comparison.add_steps(f"{name}.{result}", value, expected, sums[result].view(expected.shape), SUM_ERROR)
        yield result, relative_error(value, expected)


def _magnitudes(recorded: RecordedRun, name: str) -> dict[str, Tensor]:
    """Sums of the magnitudes of the terms of each result."""
    part = {op: recorded.tensors[f"{name}.{op}.dequant"].abs() for op in ("fprop.input", "fprop.weight", "dgrad.dy")}
    part |= {
        op: recorded.tensors[f"{name}.{op}.dequant"].abs() for op in ("dgrad.weight_t", "wgrad.dy_t", "wgrad.input_t")
    }
    return {
        "y": part["fprop.input"] @ part["fprop.weight"].t(),
        "dx": part["dgrad.dy"] @ part["dgrad.weight_t"].t(),
        "dw": part["wgrad.dy_t"] @ part["wgrad.input_t"].t(),
        "db": recorded.tensors["dy"].float().abs().flatten(0, -2).sum(0),
    }


def _compare_stochastic(comparison: Comparison, recorded: RecordedRun) -> None:
    """Compares dy, rounded stochastically with recorded random numbers, to the bit."""
    tensors = recorded.tensors
    for name in [
        name.removesuffix(".values") for name in tensors if name.startswith("sr.") and name.endswith(".values")
    ]:
        rule, dy, uniforms = name.removeprefix("sr."), tensors["dy"].flatten(0, -2), tensors["sr.u"]
        if not rule.startswith("static") and uniforms.ndim == dy.ndim:
            uniforms = torch.stack((uniforms, uniforms))
        packed: NVFP4 = quantize_nvfp4_stochastic(dy, uniforms, rule, unbiased=False, swizzled=False)
        _compare_operand(comparison, recorded, name, Operand(packed, (dy.shape[0], dy.shape[1]), False))
