"""The attention function, which is passed as an argument everywhere, and the best one that PyTorch has for a device."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


class Attention(Protocol):
    """softmax(q kᵀ / √D) v without a mask.

    q `[B, L, H, D]`, k and v `[B, M, H, D]`, all of one dtype and with a contiguous last dimension → `[B, L, H, D]`.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with PyTorch's choice of backend; shapes as in `Attention`."""
    return scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


# PyTorch prefers FlashAttention-2 to cuDNN, although it is the slower of the two on Hopper and later.
_CUDA_ORDER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def cuda_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` by the first of cuDNN, flash, memory-efficient and math; shapes as `Attention`."""
    with sdpa_kernel(_CUDA_ORDER, set_priority=True):
        return torch_attention(q, k, v)


def default_attention(device: torch.device) -> Attention:
    """The fastest attention that PyTorch has on this device."""
    return cuda_attention if device.type == "cuda" else torch_attention
