"""Layers in FP8: what is in front of them writes FP8, inputs are quantised once, q, k and v are one product."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from longlive.kernels import eager, quantize_fp8_rows
from longlive.longlive_core.model import CausalWan, WanConfig, fp8, layers, linears, producers
from longlive.longlive_core.model.fp8 import FP8Linear, FP8Rows, fp8_matmul, stacked_product
from longlive.longlive_core.model.layers import Layer
from longlive.longlive_core.model.linears import BypassLinear, Scratch, quantize_linears
from longlive.longlive_core.model.rope import rope_angles
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = WanConfig(dim=64, ffn_dim=128, num_heads=2, num_layers=1, freq_dim=32, text_dim=16, text_len=5)


class Cache:
    """Attends the new tokens and a fixed prompt only."""

    def __init__(self) -> None:
        self.text = torch.randn(1, 5, 2, 32)

    def attend(self, _layer: int, q: Any, *rest: Any) -> Tensor:  # noqa: ANN401
        if isinstance(q, Tensor):
            return _attention(q, self.text, self.text)
        k, v, rope = rest
        return _attention(q.rotated(rope), k.rotated(rope), v)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def small_layer() -> Layer:
    torch.manual_seed(0)
    model = CausalWan(SMALL).requires_grad_(False)
    quantize_linears(model, "fp8")
    block = model.blocks[0]
    assert isinstance(block, Layer)
    return block


def run(block: Layer) -> Tensor:
    torch.manual_seed(1)
    rope = rope_angles(torch.arange(2.0), (2, 4), 32)
    return block(torch.randn(1, 16, 64), torch.randn(1, 2, 6, 64), Cache(), Cache(), rope)


def beside(layer: nn.Module) -> BypassLinear:
    """A LoRA that changes nothing, so that outputs can be compared."""
    return BypassLinear(layer, torch.zeros(4, 64), torch.zeros(64, 4), 1.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the named functions were called."""
    counts: dict[str, int] = {}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object) -> object:
            counts[name] = counts.get(name, 0) + 1
            return function(*args)

        return call

    monkeypatch.setattr(fp8, "quantize_fp8_rows", counted("quantize", quantize_fp8_rows))
    monkeypatch.setattr(fp8, "fp8_matmul", counted("product", fp8_matmul))
    return counts


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
