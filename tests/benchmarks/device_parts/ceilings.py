"""What the device reaches: copies, the products of a layer in bf16 and FP8, and attention by each backend.

All at the shapes of a pass of the 5B model at 704x1280. A backend that cannot run has a row that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

import torch
from longlive.kernels import quantize_fp8_rows
from longlive.longlive_core.model.attention import Attention
from longlive.longlive_core.model.fp8 import fp8_matmul
from longlive.longlive_core.model.fp8_gate import MIN_COSINE
from torch import Tensor
from torch.nn import functional as F

from .attentions import find_attention
from .part import Found, Skipped, Task
from .timing import CUDA, DEVICE, ColdTimer, abba

TOKENS, DIM, HEADS, FFN, KEYS, TEXT, COPY = 7040, 3072, 24, 14336, 28160, 512, 1 << 32
TOY = (64, 64, 2, 128, 256, 32, 1 << 20)
FP8_ERROR = sqrt(2 * (1 - MIN_COSINE))
"""Largest relative L2 error of attention in FP8, a tenth: what the gate of a film lets pass."""


def tasks(toy: bool) -> list[Task]:
    """One task for each row."""
    tokens, dim, heads, ffn, keys, text, copied = TOY if toy else (TOKENS, DIM, HEADS, FFN, KEYS, TEXT, COPY)
    rounds = 1 if toy else 5
    shapes = [(dim, dim), (dim, 3 * dim), (dim, ffn), (ffn, dim)]
    return [
        Task("copy", partial(copy, copied, rounds)),
        *(Task(f"linear, {k} to {n}", partial(linear, tokens, k, n, rounds)) for k, n in shapes),
        *(
            Task(f"{name}, {length} keys", partial(attend, kind, (tokens, length, heads, dim // heads), rounds))
            for length in (keys, text)
            for kind, name in ATTENTIONS.items()
            if kind != "fp8" or length == keys  # the prompt is attended in bf16
        ),
    ]


ATTENTIONS = {
    "default": "attention, torch's choice",
    "flash": "attention, FlashAttention-2",
    "best": "attention, ours",
    "host": "attention, ComfyUI's order",
    "fp8": "attention in FP8",
}


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds with cold caches."""
    return {f"ms, {name}": values for name, values in abba(runs, ColdTimer(), rounds).items()}


def copy(size: int, rounds: int) -> Found:
    """A copy of `size` bytes."""
    source = torch.empty(size, dtype=torch.uint8, device=DEVICE).fill_(1)
    target = torch.empty_like(source)
    return Found({"MB": 2 * size / 1e6}, measure({"copy": lambda: target.copy_(source)}, rounds))


@torch.inference_mode()
def linear(tokens: int, k: int, n: int, rounds: int) -> Found:
    """A linear layer with a bias in bf16, and in FP8: quantising the rows, and the product."""
    x, weight, bias = (torch.randn(*shape, device=DEVICE).bfloat16() for shape in ((tokens, k), (n, k), (n,)))
    runs: dict[str, Callable[[], object]] = {"bf16": partial(F.linear, x, weight, bias)}
    if not CUDA or torch.cuda.get_device_capability() >= (8, 9):
        rows, codes = quantize_fp8_rows(x), quantize_fp8_rows(weight)
        runs["quantise"] = partial(quantize_fp8_rows, x)
        runs["fp8"] = partial(fp8_matmul, *rows, *codes, torch.bfloat16, bias)
    return Found({"TFLOP": 2 * tokens * k * n / 1e12}, measure(runs, rounds))


@torch.inference_mode()
def attend(kind: str, shape: tuple[int, int, int, int], rounds: int) -> Found:
    """Attention of `[1, tokens, heads, width]` over `[1, keys, heads, width]`, compared with that in float32."""
    tokens, keys, heads, width = shape
    attention = find_attention(kind, width)
    if isinstance(attention, str):
        raise Skipped(attention)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, n, heads, width, device=DEVICE).bfloat16() for n in (tokens, keys, keys))
    rows = slice(0, min(256, tokens))
    error = distance(attention(q, k, v)[:, rows], exact(q[:, rows], k, v))
    limit = FP8_ERROR if kind == "fp8" else 1e-2
    red = "" if error <= limit else f"relative error {error:.1e} is above {limit:.0e}"
    figures: dict[str, float | str] = {"TFLOP": 4 * tokens * keys * heads * width / 1e12, "error": error}
    run: Attention = attention
    return Found(figures, {} if red else measure({"attention": lambda: run(q, k, v)}, rounds), red)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in float32; shapes as in `Attention`."""
    q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
    return ((q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2)


def distance(x: Tensor, expected: Tensor) -> float:
    """Relative L2 error."""
    return float((x.float() - expected).norm() / expected.norm())
