"""Activations, computed in float32 and rounded once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rows import launch, load_row, store_as


def gelu_tanh(x: Tensor) -> Tensor:
    """x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), the tanh approximation of GELU (arXiv 1606.08415).

    Any shape and float dtype. Computed in float32 and rounded once.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    launch(_gelu_tanh, triton.cdiv(x.numel(), 2048), x, out, x.numel(), BLOCK=2048)
    return out


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(−x)), with an exponential that cannot overflow."""
    decay = tl.exp(-tl.abs(x))
    return tl.where(x < 0, decay, 1.0) / (1.0 + decay)


@triton.jit
def gelu_tanh_of(x: tl.tensor) -> tl.tensor:
    """The tanh approximation of GELU, of float32 in registers."""
    # (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), which avoids the cancellation in 1 + tanh for negative x. Divided by the
    # infinity of an overflow it is 0. The factors are -2 √(2/π) log2(e), and the same times 0.044715.
    return x / (1.0 + tl.exp2(x * (-2.302208198144325 - 0.10294323958002348 * (x * x))))


@triton.jit
def _gelu_tanh(x: tl.tensor, out: tl.tensor, size: tl.tensor, BLOCK: tl.constexpr) -> None:
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < size
    store_as(out + offsets, gelu_tanh_of(load_row(x, offsets, mask)), mask)
