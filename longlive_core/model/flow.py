"""What the sampler asks of a model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .config import WanConfig
from .layers import FrameMemory, KeyValue, TextMemory


class FlowModel(Protocol):
    """Anything that predicts flow of a block and leaves its K/V in a memory; `CausalWan` is one."""

    @property
    def config(self) -> WanConfig: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, x: Tensor, t: Tensor, text: TextMemory, kv: FrameMemory, positions: Tensor) -> Tensor:
        """See `CausalWan.forward`."""
        ...

    def write_kv(self, x: Tensor, t: Tensor, text: TextMemory, kv: FrameMemory, positions: Tensor) -> None:
        """See `CausalWan.write_kv`."""
        ...

    def text_keys(self, text: Tensor) -> tuple[KeyValue, ...]:
        """See `CausalWan.text_keys`."""
        ...
