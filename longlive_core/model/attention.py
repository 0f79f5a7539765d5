"""Attention as a callable that is handed in: every part takes an `Attention`, the default asks torch for its best."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


class Attention(Protocol):
    """softmax(q kᵀ / sqrt(D)) v without a mask.

    q `[B, L, H, D]`, k and v `[B, M, H, D]`, all of one dtype and with a dense last dimension → `[B, L, H, D]`.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with torch's own choice of backend."""
    return scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


# torch's own order puts FlashAttention-2 before cuDNN, which is the slower of the two on Hopper and later.
_CUDA_ORDER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def cuda_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with cuDNN tried first, then flash, memory-efficient and plain."""
    with sdpa_kernel(_CUDA_ORDER, set_priority=True):
        return torch_attention(q, k, v)


def default_attention(device: torch.device) -> Attention:
    """The best that torch has on this device."""
    return cuda_attention if device.type == "cuda" else torch_attention
