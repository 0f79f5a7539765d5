"""The attention function, which is passed as an argument everywhere, and the best one that PyTorch has for a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention
from torch.nn.functional import scaled_dot_product_attention


class Attention(Protocol):
    """softmax(q kᵀ / √D) v without a mask.

    q `[B, L, H, D]`, k and v `[B, M, H, D]`, all of one dtype and with a contiguous last dimension → `[B, L, H, D]`.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class AttentionByLayer:
    """An `Attention`, and others in its place in the self-attention of some layers.

    usual: of cross-attention and of the layers that are not in `layers`.
    """

    usual: Attention
    layers: Mapping[int, Attention]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.usual(q, k, v)


def attention_of(attention: Attention, layer: int) -> Attention:
    """The attention function of the self-attention of a layer."""
    return attention.layers.get(layer, attention.usual) if isinstance(attention, AttentionByLayer) else attention


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with PyTorch's choice of backend; shapes as in `Attention`."""
    return scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def cuda_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by cuDNN where it takes the tensors, otherwise by PyTorch's choice of backend; shapes as `Attention`.

    PyTorch may prefer FlashAttention-2, although it is the slower of the two on Hopper and later. The op of the backend
    is called by itself: `sdpa_kernel` would change the choice of the whole process, for other threads too. With a
    gradient the choice is PyTorch's.
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if not needs_grad and can_use_cudnn_attention(SDPAParams(q, k, v, None, 0.0, False, False)):
        return cudnn_attention(q, k, v).transpose(1, 2)
    return scaled_dot_product_attention(q, k, v).transpose(1, 2)


def cudnn_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """cuDNN's attention without a mask or a gradient, `[B, H, L, D]`."""
    return torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False, 0.0, False, False)[0]


def prefers_cudnn(device: torch.device) -> bool:
    """Whether cuDNN has the fastest attention of PyTorch on a device: on Hopper and on Blackwell of data centres."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device)[0] in (9, 10)


def default_attention(device: torch.device) -> Attention:
    """The fastest attention that PyTorch has on this device."""
    return cuda_attention if device.type == "cuda" else torch_attention
