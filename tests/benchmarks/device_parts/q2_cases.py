"""Arguments of the ops that write or read q2 numbers."""

from __future__ import annotations

from typing import Any

import torch
from longlive.kernels import eager

from .op_case import OpCase, Result, Size

STAGES, COUNT = 4, 16
"""The centroids of a block of the 5B model at 704x1280."""


def quantize_q2(size: Size) -> OpCase:
    x = size.normal(1, size.tokens, size.heads, size.width // size.heads).float()
    spread = torch.ones_like(x[:, :1])

    def decode(result: Result) -> Result:
        codes, scales = result
        table = torch.tensor([0.5, 1.5, -0.5, -1.5], device=codes.device)
        numbers = torch.stack([table[(codes >> shift & 3).long()] for shift in range(0, 8, 2)], -1).flatten(-2)
        return (numbers.unflatten(-1, (scales.shape[-1], -1)) * scales.float().unsqueeze(-1),)

    return OpCase((x, spread), lambda ops: ops.quantize_q2(x, spread), decode=decode)


def read_q2(size: Size) -> OpCase:
    width, device = size.width // size.heads, size.device
    x = size.normal(4, size.tokens, size.heads, width).float()
    codes, scales = (part[None] for part in eager.quantize_q2(x, torch.ones_like(x[:, :1])))
    count = STAGES * COUNT
    indices = torch.ones(1, 4, STAGES * size.tokens // 2, size.heads, 1, dtype=torch.uint8, device=device)
    centroids = torch.ones(1, 4, count, size.heads, width, dtype=torch.int8, device=device)
    channels = torch.ones(1, 4, 1, size.heads, width, device=device).to(torch.float8_e4m3fn)
    steps = torch.ones(1, 4, STAGES, size.heads, 1, device=device)
    store = codes, scales, indices, centroids, channels, steps
    out = size.normal(1, 4 * size.tokens, size.heads, width)

    def run(ops: Any) -> Result:  # noqa: ANN401 (a backend)
        ops.read_q2(*store, [0, 1, 2], out)
        return (out[:, : 3 * size.tokens],)

    return OpCase(tuple(part[:, :3] for part in store), run)
