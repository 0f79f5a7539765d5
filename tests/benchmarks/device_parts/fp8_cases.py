"""Arguments of the ops that write or read FP8 numbers."""

from __future__ import annotations

from typing import Any

import torch
from longlive.kernels import eager

from .op_case import EPS, OpCase, Result, Size


def quantize_fp8_rows(size: Size, width: int | None = None) -> OpCase:
    x = size.normal(size.tokens, width or size.ffn)
    return OpCase((x,), lambda ops: ops.quantize_fp8_rows(x), decode=lambda result: (result[0].float() * result[1],))


def quantize_fp8_heads(size: Size) -> OpCase:
    x = size.normal(1, 4 * size.tokens, size.heads, size.width // size.heads)
    return OpCase((x,), lambda ops: ops.quantize_fp8_heads(x), decode=fp8_values)


def layer_norm_modulate_fp8(size: Size) -> OpCase:
    x, _, (_, scale, shift) = size.block()
    return OpCase((x, scale, shift), lambda ops: ops.layer_norm_modulate_fp8(x, scale, shift, EPS), decode=fp8_values)


def gate_residual_norm_fp8(size: Size) -> OpCase:
    x, y, (gate, _, _) = size.block()
    weight, bias = size.normal(size.width), size.normal(size.width)
    reads = (x, y, gate, weight, bias)
    return OpCase(reads, lambda ops: ops.gate_residual_norm_fp8(x, y, gate, weight, bias, EPS), decode=fp8_values)


def gate_residual_modulate_fp8(size: Size) -> OpCase:
    x, y, (_, scale, shift) = size.block()
    reads = (x, y, scale, shift)
    return OpCase(reads, lambda ops: ops.gate_residual_modulate_fp8(x, y, None, scale, shift, EPS), decode=fp8_values)


def gelu_tanh_fp8(size: Size) -> OpCase:
    x = size.normal(size.tokens, size.ffn)
    return OpCase((x,), lambda ops: ops.gelu_tanh_fp8(x), decode=fp8_values)


def read_fp8(size: Size) -> OpCase:
    x = size.normal(1, 4 * size.tokens, size.heads, size.width // size.heads)
    values, scales = eager.quantize_fp8_rows(x.view(-1, x.shape[-1]))
    store = values.view(1, 4, size.tokens, *x.shape[2:]), scales.view(1, 4, size.tokens, size.heads, 1)
    out = torch.empty_like(x)

    def run(ops: Any) -> Result:  # noqa: ANN401 (a backend)
        ops.read_fp8(*store, [0, 1, 2], out)
        return (out[:, : 3 * size.tokens],)

    return OpCase(tuple(part[:, :3] for part in store), run)


def fp8_values(result: Result) -> Result:
    """What the codes and scales at the end of a result stand for, after what is in front of them."""
    return *result[:-2], result[-2].float() * result[-1]
