"""The norms of the transformer that have weights. Attributes are named as in Wan's state dict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import rms_norm


class RMSNorm(nn.Module):
    """RMS norm over the full model width, `[..., C]`, as Wan normalises q and k over all heads together."""

    def __init__(self, dim: int, eps: float, factory: dict[str, Any]) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, **factory))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Parameters of the affine layer norm before cross-attention, which `gate_residual_norm` computes."""

    def __init__(self, dim: int, factory: dict[str, Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, **factory))
        self.bias = nn.Parameter(torch.zeros(dim, **factory))
