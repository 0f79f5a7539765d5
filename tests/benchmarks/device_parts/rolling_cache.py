"""The KV cache of the reference in plain PyTorch, a baseline of the ladder: it copies and rolls whole buffers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from longlive.longlive_core.memory import PoolShape
from longlive.longlive_core.memory.prompts import PromptKV
from longlive.longlive_core.model import KeyValue, Projected, Rope
from longlive.longlive_core.model.attention import Attention
from longlive.longlive_core.types import BlockSpec
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RollingCacheCall:
    """`KVCache` of one call as in LongLive 2.0.

    Each layer attends to a copy of its whole buffer that contains the new keys. The buffers are written after the last
    layer; until then the new K/V of all layers stay allocated.

    buffers: K/V of each layer, `[B, slots · block_tokens, H, D]`. filled: tokens in a buffer, including the new ones.
    sink: tokens at the start of a buffer that are never evicted. rolls: whether this is the first call of a block with
    full buffers. Then the oldest tokens after the sink are evicted, and all later ones move, in the copy and again in
    the buffer.
    """

    buffers: tuple[KeyValue, ...]
    block_tokens: int
    sink: int
    filled: int
    rolls: bool
    attention: Attention
    new: dict[int, KeyValue] = field(default_factory=dict[int, KeyValue])

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`."""
        self.store(layer, k, v, rope)
        copy = KeyValue(self.buffers[layer].k.clone(), self.buffers[layer].v.clone())
        self._insert(copy, self.new[layer])
        return self.attention(q.rotated(rope), copy.k[:, : self.filled], copy.v[:, : self.filled])

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """See `KVCache.store`."""
        self.new[layer] = KeyValue(k.rotated(rope), v)

    def write_back(self) -> None:
        """Writes the new K/V of all layers to the buffers."""
        for layer, new in self.new.items():
            self._insert(self.buffers[layer], new)

    def _insert(self, buffers: KeyValue, new: KeyValue) -> None:
        for buffer, tokens in zip(buffers, new, strict=True):
            if self.rolls:
                buffer[:, self.sink : -self.block_tokens] = buffer[:, self.sink + self.block_tokens :].clone()
            buffer[:, self.filled - self.block_tokens : self.filled] = tokens


class RollingCache:
    """KV cache of a film as in the reference, with the interface of `FilmKVCache`; for one shot, with one sink block.

    It omits two costs of the reference: it reads no index back from the device, and its clean pass ends at the keys of
    the last layer, like ours.
    """

    def __init__(self, shape: PoolShape, text: PromptKV, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = shape
        self._text = text
        self._buffers = tuple(shape.empty(dtype, device) for _ in range(shape.layers))
        self._blocks = 0
        self._current: int | None = None
        self._rolls = False

    def begin(self, block: BlockSpec) -> None:
        """See `FilmKVCache.begin`."""
        if block.index != self._current:
            self._current = block.index
            self._rolls = self._blocks == self._shape.slots
            self._blocks += not self._rolls

    def calls(self, block: BlockSpec, *, clean: bool) -> Iterator[tuple[PromptKV, RollingCacheCall]]:  # noqa: ARG002
        """See `FilmKVCache.calls`."""
        tokens = self._shape.block_tokens
        filled = self._blocks * tokens
        call = RollingCacheCall(self._buffers, tokens, tokens, filled, self._rolls, self._text.attention)
        yield self._text, call
        call.write_back()
        self._rolls = False

    def end(self, block: BlockSpec) -> None:
        """Does nothing, because the clean pass has overwritten the K/V of the noisy passes."""
