"""Baselines of `bench_pass.py`: the KV cache of the reference in plain PyTorch, and layers through torch.compile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from longlive.kernels import eager
from longlive.kernels.registry import Op
from longlive.longlive_core.memory import BlockKVCache, PoolShape
from longlive.longlive_core.memory.prompts import PromptKV
from longlive.longlive_core.model import CausalWan, KeyValue, KVCache, Projected, Rope, TextKVCache, layers
from longlive.longlive_core.model.attention import Attention
from longlive.longlive_core.model.layers import Layer
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


@dataclass(frozen=True, slots=True)
class LayerKVCache:
    """`KVCache` of one layer with a full window. kv: `[B, L, H, D]`. rows: rows of the new block, `[block_tokens]`."""

    kv: KeyValue
    rows: Tensor
    attention: Attention

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`."""
        self.store(layer, k, v, rope)
        return self.attention(q.rotated(rope), *self.kv)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:  # noqa: ARG002
        """See `KVCache.store`."""
        self.kv.k.index_copy_(1, self.rows, k.rotated(rope))
        self.kv.v.index_copy_(1, self.rows, v)


@dataclass(frozen=True, slots=True)
class LayerTextKVCache:
    """`TextKVCache` of one layer. kv: `[B, L, H, D]`."""

    kv: KeyValue
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:  # noqa: ARG002
        """See `TextKVCache.attend`."""
        return self.attention(q, *self.kv)


class CompiledLayers:
    """Layers through torch.compile: one graph for all layers and slots, and one for the last layer of a clean pass.

    The index of a layer and that of a slot are integers, which torch.compile treats as constants, with one graph for
    each value. So each layer gets its own KV cache, and the slot as a tensor. PyTorch raises an error if a graph breaks
    or if there are too many graphs, so that nothing runs uncompiled unnoticed. Layers are not compiled until the window
    is full.

    tuned: on a GPU, choose the fastest kernel for each matrix product, of the library or of Triton; it takes minutes.
    """

    def __init__(self, *, tuned: bool) -> None:
        mode = "max-autotune-no-cudagraphs" if tuned and torch.cuda.is_available() else "default"
        self._forward = torch.compile(Layer.forward, fullgraph=True, dynamic=False, mode=mode)
        self._store = torch.compile(Layer.store, fullgraph=True, dynamic=False, mode=mode)

    def wrap_layers(self, model: CausalWan) -> None:
        """Replaces the methods of the model's layers by compiled ones."""
        for layer in model.blocks:
            assert isinstance(layer, Layer)
            layer.forward = partial(self._run_forward, layer)
            layer.store = partial(self._run_store, layer)

    def eager_ops(self) -> AbstractContextManager[object]:
        """A context in which layers call the eager ops directly; the dispatch of the registry cannot be traced."""
        ops: Any = {name: op.eager for name, op in vars(layers).items() if isinstance(op, Op)}
        ops["rms_norm_rope"] = rms_norm_rope
        return patch.multiple(layers, **ops)

    def _run_forward(self, layer: Layer, x: Tensor, e: Tensor, text: TextKVCache, kv: KVCache, rope: Rope) -> Tensor:
        cache = layer_cache(kv, layer)
        if cache is None:
            return Layer.forward(layer, x, e, text, kv, rope)
        assert isinstance(text, PromptKV)
        prompt = LayerTextKVCache(text.layers[layer.self_attn.layer], text.attention)
        return self._forward(layer, x, e, prompt, cache, rope)

    def _run_store(self, layer: Layer, x: Tensor, e: Tensor, kv: KVCache, rope: Rope) -> None:
        cache = layer_cache(kv, layer)
        return Layer.store(layer, x, e, kv, rope) if cache is None else self._store(layer, x, e, cache, rope)


def layer_cache(kv: KVCache, layer: Layer) -> LayerKVCache | None:
    """The part of the KV cache that belongs to a layer, or None if the window is not full yet."""
    assert isinstance(kv, BlockKVCache)
    pool, index = kv.pool, layer.self_attn.layer
    if len(kv.blocks) < pool.shape.slots:
        return None
    layer_kv = pool.read(index, pool.shape.slots, pool.new_block(index, kv.slot).k.dtype)
    first = kv.slot * pool.shape.block_tokens
    rows = torch.arange(first, first + pool.shape.block_tokens, device=layer_kv.k.device)
    return LayerKVCache(layer_kv, rows, kv.attention)


def rms_norm_rope(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float, out: Tensor | None = None
) -> Tensor:
    """The eager op with real arithmetic, because torch.compile generates no code for complex numbers."""
    a, b = eager.rms_norm(x, weight, eps).float().unflatten(-1, (heads, -1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    y = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
    return y if out is None else out.copy_(y)
