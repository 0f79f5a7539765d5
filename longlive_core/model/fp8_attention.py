"""Attention with q, k and v in FP8 (E4M3): its arithmetic in plain PyTorch, and what is installed that is fast."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ...kernels import quantize_fp8_heads
from .fp8_backends import P_MAX, CuDNN, FlashAttention3, SageAttention, TorchQuantized

_NUMBERS = 2**24
"""Scores that are computed at a time."""


class FP8Attention(Protocol):
    """An implementation of attention in FP8: an `Attention` that takes bfloat16 and quantises it itself."""

    @property
    def name(self) -> str:
        """The package that has it, for logs."""
        ...

    def supports(self, device: torch.device, head_dim: int) -> bool:
        """Whether it is installed and runs on this device with heads of this width."""
        ...

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attention`. Raises RuntimeError for tensors that the package refuses."""
        ...


class EmulatedFP8:
    """`emulate_fp8_attention` as a backend, for a CPU, where it shows what the films of a GPU look like."""

    name = "emulated"

    def supports(self, device: torch.device, head_dim: int) -> bool:  # noqa: ARG002
        """On a CPU only: on a GPU it takes the time of attention in float32."""
        return device.type == "cpu"

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return emulate_fp8_attention(q, k, v, rounded=True)


BACKENDS: tuple[FP8Attention, ...] = (CuDNN(), FlashAttention3(), TorchQuantized(), SageAttention(), EmulatedFP8())
"""In the order of preference. The first one is as fast as the second and comes with a small wheel."""


def find_fp8_attention(device: torch.device | str, head_dim: int = 128) -> FP8Attention | None:
    """The first of `BACKENDS` that is installed and runs on this device, or None. Imports no package that it lacks."""
    device = torch.device(device)
    return next((backend for backend in BACKENDS if backend.supports(device, head_dim)), None)


def emulate_fp8_attention(q: Tensor, k: Tensor, v: Tensor, *, rounded: bool = False) -> Tensor:
    """softmax(q kᵀ / √D) v with operands in E4M3 and sums in float32, as FlashAttention-3 and cuDNN compute it.

    q, k and v have one scale for each head. The softmax's weights, relative to the largest one of a row, are
    multiplied with 448 and rounded to E4M3; the sum that divides them is of the unrounded ones. The result is rounded
    to bfloat16. rounded: round it to E4M3 before, in units of v's scales, as cuDNN does on Hopper.

    q `[B, L, H, D]`, k and v `[B, M, H, D]` → `[B, L, H, D]` in q's dtype.
    """
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = (_by_heads(x) for x in (q, k, v))
    factor = q_scale * k_scale * q.shape[-1] ** -0.5
    queries = max(1, _NUMBERS // (k8.shape[2] * k8.shape[0] * k8.shape[1]))
    parts = [_attend(part, k8, v8, factor) for part in q8.split(queries, dim=2)]
    out = torch.cat(parts, dim=2)
    if rounded:
        out = _e4m3(out)
    return (out * v_scale).to(torch.bfloat16).transpose(1, 2).to(q.dtype)


def _by_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """The E4M3 numbers of x `[B, L, H, D]` in float32, `[B, H, L, D]`, and their scales `[B, H, 1, 1]`."""
    codes, scales = quantize_fp8_heads(x)
    return codes.float().transpose(1, 2), scales.transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, factor: Tensor) -> Tensor:
    """Attention of E4M3 numbers in float32, `[B, H, L, D]`, in units of v. factor: of the scores, `[B, H, 1, 1]`."""
    scores = (q @ k.transpose(2, 3)) * factor
    weights = (scores - scores.amax(-1, keepdim=True)).exp_()
    return (_e4m3(weights * P_MAX) @ v) / (P_MAX * weights.sum(-1, keepdim=True))


def _e4m3(x: Tensor) -> Tensor:
    """x rounded to E4M3, in float32."""
    return x.to(torch.float8_e4m3fn).float()
