"""A small transformer block in FP8, a call of it, and a count of what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from longlive.kernels import quantize_fp8_rows
from longlive.longlive_core.model import CausalWan, WanConfig, fp8
from longlive.longlive_core.model.fp8 import fp8_matmul
from longlive.longlive_core.model.layers import Layer
from longlive.longlive_core.model.linears import quantize_linears
from longlive.longlive_core.model.rope import rope_angles
from torch import Tensor
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


def count_calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
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
