"""Convolutions of the VAE on an NVIDIA GPU, by the fastest of cuDNN's algorithms for each shape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """2-D or 3-D convolution, `[B, C_in, (T,) H, W]` → `[B, C_out, (T,) H, W]`, weight `[C_out, C_in, (k,) k, k]`.

    Where cuDNN computes it without a gradient, cuDNN tries its algorithms when it first sees a shape. A film has few
    shapes, and each is convolved thousands of times. That is an argument of cuDNN's op. The flag
    `torch.backends.cudnn.benchmark`, which PyTorch's own convolutions read, belongs to all threads of the process:
    changed around a call here, it would change the convolutions of a sampler in another thread. The last bits of frames
    may depend on the algorithm, and so on the process; with deterministic algorithms PyTorch chooses.
    """
    if not takes_cudnn(x, weight):
        op = F.conv3d if x.ndim == 5 else F.conv2d
        return op(x, weight, bias, stride, padding)
    y = cudnn_convolution(x, weight, stride, padding)
    return y if bias is None else y.add_(bias.view(-1, *[1] * (x.ndim - 2)))


def takes_cudnn(x: Tensor, weight: Tensor) -> bool:
    """Whether cuDNN computes a convolution of these tensors and may choose its algorithm."""
    cudnn = torch.backends.cudnn
    if not x.is_cuda or torch.version.hip is not None or not cudnn.enabled or not cudnn.is_acceptable(x):
        return False
    deterministic = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return not deterministic and not needs_grad


def cudnn_convolution(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """cuDNN's convolution without a bias, by the fastest algorithm; tensors as in `convolution`."""
    tf32 = torch.backends.cudnn.allow_tf32
    return torch.ops.aten.cudnn_convolution(x, weight, padding, stride, [1] * len(stride), 1, True, False, tf32)
