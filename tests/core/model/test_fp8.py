"""Layers in FP8: what is in front of them writes FP8, inputs are quantised once, q, k and v are one product."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from longlive.kernels import eager, quantize_fp8_rows
from longlive.longlive_core.model import CausalWan, layers, linears, producers
from longlive.longlive_core.model.fp8 import FP8Linear, FP8Rows, fp8_matmul, stacked_product
from longlive.longlive_core.model.linears import BypassLinear, Scratch, quantize_linears
from torch import nn

from .fp8_block import SMALL, count_calls, run, small_layer


def beside(layer: nn.Module) -> BypassLinear:
    """A LoRA that changes nothing, so that outputs can be compared."""
    return BypassLinear(layer, torch.zeros(4, 64), torch.zeros(64, 4), 1.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    return count_calls(monkeypatch)


def test_nothing_is_quantised_twice(calls: dict[str, int]) -> None:
    """Only the outputs of both attentions are quantised by an op of their own, and q, k and v are one product."""
    block = small_layer()
    run(block)
    assert calls == {"quantize": 2, "product": 6}


def test_a_lora_beside_a_layer_leaves_one_quantisation(calls: dict[str, int]) -> None:
    """Beside a LoRA, which needs the input unrounded, the input of q, k and v is quantised once, by its own op."""
    block = small_layer()
    wanted = run(block)
    calls.clear()
    block.self_attn.k = beside(block.self_attn.k)
    torch.testing.assert_close(run(block), wanted, rtol=1e-5, atol=1e-5)
    assert calls == {"quantize": 3, "product": 8}


def test_the_fused_layer_is_the_layer_of_separate_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every op for itself, each of 20 linear layers quantising its own input, the output is the same."""
    block = small_layer()
    fused = run(block)
    monkeypatch.setattr(producers, "takes_fp8", lambda _layer: False)
    monkeypatch.setattr(layers, "products", lambda x, *parts: tuple(part(x) for part in parts))
    torch.testing.assert_close(run(block), fused, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [64, 3072])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_adds_the_bias_before_it_rounds(width: int, dtype: torch.dtype) -> None:
    """One rounding: it is the product in float64, of the rounded numbers, plus the bias, within half a unit."""
    x, w, bias = torch.randn(7, width).to(dtype), torch.randn(48, width), 10 * torch.randn(48).to(dtype)
    (codes, scales), (weight, weight_scales) = quantize_fp8_rows(x), quantize_fp8_rows(w)
    exact = (codes.double() * scales) @ (weight.double() * weight_scales).T + bias.double()
    y = fp8_matmul(codes, scales, weight, weight_scales, dtype, bias)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), exact, rtol=0.51 * torch.finfo(dtype).eps, atol=1e-3)


def test_stacked_weights_are_stored_once() -> None:
    """Layers keep their rows of one matrix, also in a copy of the model; moved apart, they are laid out anew."""
    torch.manual_seed(0)
    parts = [FP8Linear(*quantize_fp8_rows(torch.randn(48, 64)), torch.randn(48), Scratch()) for _ in range(3)]
    rows = FP8Rows.of(torch.randn(2, 5, 64))
    alone = [part(rows) for part in parts]
    for group in (parts, deepcopy(nn.ModuleList(parts)), [deepcopy(part) for part in parts]):
        layers_of = [layer for layer in group if isinstance(layer, FP8Linear)]
        for y, wanted in zip(stacked_product(rows, layers_of), alone, strict=True):
            torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5)
        storages = [layer.get_buffer("values").untyped_storage() for layer in layers_of]
        assert len({storage.data_ptr() for storage in storages}) == 1 and storages[0].nbytes() == 3 * 48 * 64
        whole = storages[0].data_ptr()
        stacked_product(rows, layers_of)
        assert layers_of[0].get_buffer("values").untyped_storage().data_ptr() == whole


def test_rows_without_unrounded_values_say_so() -> None:
    """A LoRA that gets rows in FP8 alone raises an error instead of adding to rounded numbers."""
    codes, scales = eager.gelu_tanh_fp8(torch.randn(3, 64))
    layer = FP8Linear(*quantize_fp8_rows(torch.randn(64, 64)), None, Scratch(), activations="fp8")
    with pytest.raises(ValueError, match="exist in FP8 only"):
        beside(layer)(FP8Rows(codes, scales, torch.float32))
    assert not linears.takes_fp8(beside(layer))


def test_weights_that_a_file_has_in_fp8_are_multiplied_as_they_are() -> None:
    """Quantised layers of a checkpoint take rows too, with their own numbers; in E5M2 they are left alone."""
    model = CausalWan(SMALL).requires_grad_(False)
    quantize_linears(model, "fp8")
    for name, dtype in (("self_attn.q", torch.float8_e4m3fn), ("self_attn.k", torch.float8_e5m2)):
        layer = model.get_submodule(f"blocks.0.{name}")
        assert isinstance(layer, FP8Linear)
        layer.activations, layer.values = "float", layer.get_buffer("values").float().to(dtype)
    before = model.get_submodule("blocks.0.self_attn.q").get_buffer("values")
    assert quantize_linears(model, "fp8") == 9
    q, k = (model.get_submodule(f"blocks.0.self_attn.{name}") for name in "qk")
    assert linears.takes_fp8(q) and q.get_buffer("values") is before and not linears.takes_fp8(k)
