"""Layers of the transformer through torch.compile, a baseline of the ladder."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from longlive.kernels import eager
from longlive.kernels.registry import Op
from longlive.longlive_core.memory import BlockKVCache
from longlive.longlive_core.memory.prompts import PromptKV
from longlive.longlive_core.model import (
    CausalWan,
    KeyValue,
    KVCache,
    Projected,
    Rope,
    TextKVCache,
    kv_cache,
    layers,
    norms,
)
from longlive.longlive_core.model.attention import Attention
from longlive.longlive_core.model.layers import Layer
from torch import Tensor


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
        options = compile_options(tuned=tuned)
        self._forward = torch.compile(Layer.forward, fullgraph=True, dynamic=False, **options)
        self._store = torch.compile(Layer.store, fullgraph=True, dynamic=False, **options)

    def wrap_layers(self, model: CausalWan) -> None:
        """Replaces the methods of the model's layers by compiled ones."""
        for layer in model.blocks:
            assert isinstance(layer, Layer)
            layer.forward = partial(self._run_forward, layer)
            layer.store = partial(self._run_store, layer)

    def eager_ops(self) -> AbstractContextManager[object]:
        """A context in which layers call the eager ops directly; the dispatch of the registry cannot be traced."""
        eager = ExitStack()
        for module in (layers, norms, kv_cache):
            ops: Any = {name: op.eager for name, op in vars(module).items() if isinstance(op, Op)}
            if module is kv_cache:
                ops["rms_norm_rope"] = rms_norm_rope
            eager.enter_context(patch.multiple(module, **ops))
        return eager

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


def compile_options(*, tuned: bool) -> dict[str, Any]:
    """Options of torch.compile. Without CUDA it makes graphs and runs them as they are, which needs no C++ compiler."""
    if not torch.cuda.is_available():
        return {"backend": "aot_eager"}
    return {"mode": "max-autotune-no-cudagraphs" if tuned else "default"}


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
