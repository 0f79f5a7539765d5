"""A buffer for dequantised weights."""

from __future__ import annotations

import torch
from torch import Tensor


class Scratch:
    """A buffer for one dequantised weight, which the layers of a model share because they run one after another."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def take(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor of `shape`. It overwrites the one that was taken before."""
        size = shape[0] * shape[1]
        buffer = self._buffers.get((device, dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[device, dtype] = torch.empty(size, dtype=dtype, device=device)
        return buffer[:size].view(shape)
