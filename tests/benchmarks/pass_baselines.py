"""What `bench_pass.py` measures ours against: the reference's cache in plain torch, and torch.compile."""

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
from longlive.longlive_core.memory import BlockKVCache, PoolShape, PromptKV
from longlive.longlive_core.model import CausalWan, KeyValue, KVCache, Projected, Rope, TextKVCache, layers
from longlive.longlive_core.model.attention import Attention
from longlive.longlive_core.model.layers import Layer
from longlive.longlive_core.types import BlockSpec
from torch import Tensor


@dataclass(frozen=True, slots=True)
class CopyRollCall:
    """`KVCache` of one call in LongLive 2.0: each layer attends a copy of its whole buffer with the new keys in it,
    and the buffers are written after the last layer, until when the new keys and values of all layers are held.

    kept: of each layer `[B, slots · block_tokens, H, D]`. filled: tokens in it, the new ones included. sink: tokens at
    its start that stay. rolls: this is the first call of a block that found the buffer full, so that the oldest tokens
    behind the sink go and all others move, in the copy and again in the buffer.
    """

    kept: tuple[KeyValue, ...]
    block_tokens: int
    sink: int
    filled: int
    rolls: bool
    attention: Attention
    new: dict[int, KeyValue] = field(default_factory=dict[int, KeyValue])

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        self.store(layer, k, v, rope)
        seen = KeyValue(self.kept[layer].k.clone(), self.kept[layer].v.clone())
        self._join(seen, self.new[layer])
        return self.attention(q.rotated(rope), seen.k[:, : self.filled], seen.v[:, : self.filled])

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        self.new[layer] = KeyValue(k.rotated(rope), v)

    def write_back(self) -> None:
        for layer, new in self.new.items():
            self._join(self.kept[layer], new)

    def _join(self, kept: KeyValue, new: KeyValue) -> None:
        for past, fresh in zip(kept, new, strict=True):
            if self.rolls:
                past[:, self.sink : -self.block_tokens] = past[:, self.sink + self.block_tokens :].clone()
            past[:, self.filled - self.block_tokens : self.filled] = fresh


class CopyRoll:
    """A film's memory as the reference keeps it, to be used as `FilmKVCache` is; one block of sink, one shot.

    Kinder than the reference where that costs nothing to be: no index is read back from the device, and a clean pass
    ends at the last layer's keys, as ours does.
    """

    def __init__(self, shape: PoolShape, text: PromptKV, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = shape
        self._text = text
        self._kept = tuple(shape.empty(dtype, device) for _ in range(shape.layers))
        self._blocks = 0
        self._current: int | None = None
        self._rolls = False

    def begin(self, block: BlockSpec) -> None:
        if block.index != self._current:
            self._current = block.index
            self._rolls = self._blocks == self._shape.slots
            self._blocks += not self._rolls

    def calls(self, block: BlockSpec, *, clean: bool) -> Iterator[tuple[PromptKV, CopyRollCall]]:  # noqa: ARG002
        tokens = self._shape.block_tokens
        filled = self._blocks * tokens
        call = CopyRollCall(self._kept, tokens, tokens, filled, self._rolls, self._text.attention)
        yield self._text, call
        call.write_back()
        self._rolls = False

    def end(self, block: BlockSpec) -> None:
        """Nothing to do: the clean pass wrote over what the noisy ones had left."""


@dataclass(frozen=True, slots=True)
class LayerSlots:
    """`KVCache` of one layer, its window full. rows: where the new block belongs, `[block_tokens]`."""

    kept: KeyValue
    rows: Tensor
    attention: Attention

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        self.store(layer, k, v, rope)
        return self.attention(q.rotated(rope), *self.kept)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:  # noqa: ARG002
        self.kept.k.index_copy_(1, self.rows, k.rotated(rope))
        self.kept.v.index_copy_(1, self.rows, v)


@dataclass(frozen=True, slots=True)
class LayerText:
    """`TextKVCache` of one layer."""

    kept: KeyValue
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:  # noqa: ARG002
        return self.attention(q, *self.kept)


class CompiledLayers:
    """Layers through torch.compile: one graph for all of them and all slots, and one for the last of a clean pass.

    Which layer it is and which slot is written are integers, which a graph would hold as constants, one graph for each
    of them; so every layer is handed its own memory, and the slot as a tensor. Where a graph cannot be whole, or there
    are too many of them, torch raises: nothing runs uncompiled and unnoticed. A window that is filling runs plain.

    tuned: on a GPU, every matrix product by the fastest of the library and Triton, which takes minutes to find out.
    """

    def __init__(self, *, tuned: bool) -> None:
        mode = "max-autotune-no-cudagraphs" if tuned and torch.cuda.is_available() else "default"
        self._forward = torch.compile(Layer.forward, fullgraph=True, dynamic=False, mode=mode)
        self._store = torch.compile(Layer.store, fullgraph=True, dynamic=False, mode=mode)

    def take_over(self, model: CausalWan) -> None:
        for layer in model.blocks:
            assert isinstance(layer, Layer)
            layer.forward = partial(self._run_forward, layer)
            layer.store = partial(self._run_store, layer)

    def plain_ops(self) -> AbstractContextManager[object]:
        """Inside, layers call the eager ops themselves: the registry's choice is nothing that can be traced."""
        eager_ops: Any = {name: op.eager for name, op in vars(layers).items() if isinstance(op, Op)}
        eager_ops["rms_norm_rope"] = rms_norm_rope
        return patch.multiple(layers, **eager_ops)

    def _run_forward(self, layer: Layer, x: Tensor, e: Tensor, text: TextKVCache, kv: KVCache, rope: Rope) -> Tensor:
        own = own_slots(kv, layer)
        if own is None:
            return Layer.forward(layer, x, e, text, kv, rope)
        assert isinstance(text, PromptKV)
        prompt = LayerText(text.layers[layer.self_attn.layer], text.attention)
        return self._forward(layer, x, e, prompt, own, rope)

    def _run_store(self, layer: Layer, x: Tensor, e: Tensor, kv: KVCache, rope: Rope) -> None:
        own = own_slots(kv, layer)
        return Layer.store(layer, x, e, kv, rope) if own is None else self._store(layer, x, e, own, rope)


def own_slots(kv: KVCache, layer: Layer) -> LayerSlots | None:
    """The layer's part of a memory whose window is full."""
    assert isinstance(kv, BlockKVCache)
    pool, index = kv.pool, layer.self_attn.layer
    if len(kv.blocks) < pool.shape.slots:
        return None
    kept = pool.read(index, pool.shape.slots, pool.new_block(index, kv.slot).k.dtype)
    first = kv.slot * pool.shape.block_tokens
    rows = torch.arange(first, first + pool.shape.block_tokens, device=kept.k.device)
    return LayerSlots(kept, rows, kv.attention)


def rms_norm_rope(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float, out: Tensor | None = None
) -> Tensor:
    """The eager op with its rotation in real numbers: torch.compile makes no code for complex ones."""
    a, b = eager.rms_norm(x, weight, eps).float().unflatten(-1, (heads, -1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    y = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
    return y if out is None else out.copy_(y)
