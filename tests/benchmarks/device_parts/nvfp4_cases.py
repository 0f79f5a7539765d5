"""Arguments of the ops that write or read NVFP4 numbers."""

from __future__ import annotations

from typing import Any

import torch
from longlive.kernels import eager
from longlive.kernels.nvfp4_format import NVFP4
from torch import Tensor

from .op_case import OpCase, Result, Size


def quantize_nvfp4(size: Size, rule: str) -> OpCase:
    x = size.normal(size.tokens, size.ffn)
    denominator = 6.0 * (448 if rule == "static_6" else 256)

    def comfy(module: Any) -> Result:  # noqa: ANN401 (comfy-kitchen)
        amax = x.abs().amax().float()
        values, scales = module.quantize_nvfp4(x, amax / denominator, hi_first=False)
        return values, scales.view(-1), amax

    def decode(result: Result) -> Result:
        packed = NVFP4(result[0], result[1], result[2], denominator)
        return (eager.dequantize_nvfp4(packed, (size.tokens, size.ffn), torch.float32),)

    return OpCase((x,), lambda ops: ops.quantize_nvfp4(x, rule)[:3], comfy if rule == "static_6" else None, decode)


def quantize_nvfp4_stochastic(size: Size) -> OpCase:
    x = size.normal(size.tokens, size.ffn)
    uniforms = torch.rand(x.shape, device=size.device)

    def decode(result: Result) -> Result:
        packed = NVFP4(result[0], result[1], result[2], 6.0 * 256)
        return (eager.dequantize_nvfp4(packed, (size.tokens, size.ffn), torch.float32),)

    return OpCase((x, uniforms), lambda ops: ops.quantize_nvfp4_stochastic(x, uniforms)[:3], decode=decode)


def dequantize_nvfp4(size: Size) -> OpCase:
    shape = (size.ffn, size.width)
    packed = eager.quantize_nvfp4(size.normal(*shape), "mse")
    scales, scale = packed.scales.view(len(packed.values), -1), packed.amax / packed.denominator
    return OpCase(
        packed[:3],
        lambda ops: (ops.dequantize_nvfp4(packed, shape, torch.bfloat16),),
        lambda comfy: (comfy.dequantize_nvfp4(packed.values, scale, scales, torch.bfloat16, hi_first=False),),
    )


def append_nvfp4(size: Size) -> OpCase:
    x, store, rows = size.block()[0].unflatten(-1, (size.heads, -1)), slots(size), size.tokens * size.heads

    def run(ops: Any) -> Result:  # noqa: ANN401 (a backend)
        ops.append_nvfp4(x, *store, 1)
        return tuple(part[:, 1] for part in store)

    def decode(result: Result) -> Result:
        packed = NVFP4(result[0].view(rows, -1), result[1].view(rows, -1), result[2][0], 6.0 * 256)
        return (eager.dequantize_nvfp4(packed, (rows, x.shape[-1]), torch.float32, swizzled=False),)

    return OpCase((x,), run, decode=decode)


def read_nvfp4(size: Size, *, centred: bool = False) -> OpCase:
    x, store = size.block()[0].unflatten(-1, (size.heads, -1)), slots(size)
    mean = torch.ones(1, 4, 1, *x.shape[2:], device=size.device) if centred else None
    out = size.normal(1, 4 * size.tokens, *x.shape[2:])
    for slot in range(3):
        eager.append_nvfp4(x * (slot + 1), *store, slot)

    def run(ops: Any) -> Result:  # noqa: ANN401 (a backend)
        ops.read_nvfp4(*store, "mse", [0, 1, 2], out, mean)
        return (out[:, : 3 * size.tokens],)

    return OpCase(tuple(part[:, :3] for part in store), run)


def slots(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """An NVFP4 KV store of four slots: codes, scales and amax."""
    values = torch.zeros(1, 4, size.tokens * size.width // 2, dtype=torch.uint8, device=size.device)
    scales = torch.zeros(1, 4, size.tokens * size.width // 16, dtype=torch.float8_e4m3fn, device=size.device)
    return values, scales, torch.zeros(1, 4, device=size.device)
