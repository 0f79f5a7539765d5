"""The model interface of the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .config import WanConfig
from .kv_cache import KeyValue, KVCache, TextKVCache


class FlowModel(Protocol):
    """A model that predicts the flow of a block and writes its K/V to a cache, such as `CausalWan`.

    dtype, device: of the latents, embeddings and K/V that it takes and returns.
    """

    @property
    def config(self) -> WanConfig: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        """See `CausalWan.forward`."""
        ...

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        """See `CausalWan.write_kv`."""
        ...

    def text_kv(self, text: Tensor) -> Sequence[KeyValue]:
        """See `CausalWan.text_kv`."""
        ...
