"""Modules of the Wan transformer. Attributes are named as in its state dict.

Shapes: B batch, L tokens in the order (f, y, x), F latent frames, C model width, H heads, D head width, P prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...kernels import gate_residual, layer_norm_modulate
from .config import WanConfig
from .fp8 import Rows
from .kv_cache import KeyValue, KVCache, Projected, TextKVCache
from .linears import products
from .norms import LayerNorm, RMSNorm
from .producers import feed_forward, modulated_norm, residual_modulate, residual_norm
from .rope import Rope


class Ops(Protocol):
    """The classes of layers with weights: `torch.nn`, or a host's classes that cast, offload or quantise."""

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv3d(self) -> Callable[..., nn.Module]: ...


class Projections(nn.Module):
    """The projections q, k, v and o of an attention, and the norms of q and k over the full width."""

    def __init__(self, config: WanConfig, layer: int, ops: Ops, factory: dict[str, Any]) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.num_heads
        self.q, self.k, self.v, self.o = (ops.Linear(config.dim, config.dim, **factory) for _ in range(4))
        self.norm_q = RMSNorm(config.dim, config.eps, factory)
        self.norm_k = RMSNorm(config.dim, config.eps, factory)


class SelfAttention(Projections):
    """Attention of the new tokens over the KV cache, which they are added to."""

    def forward(self, x: Rows, kv: KVCache, rope: Rope) -> Tensor:
        """x `[B, L, C]` → `[B, L, C]`."""
        q, k, v = products(x, self.q, self.k, self.v)
        attended = kv.attend(self.layer, self._projected(q, self.norm_q), *self._heads(k, v), rope)
        return self.o(attended.flatten(2))

    def keys_values(self, x: Rows) -> tuple[Projected, Tensor]:
        """x `[B, L, C]` → k after its projection, and v `[B, L, H, D]`."""
        return self._heads(*products(x, self.k, self.v))

    def _heads(self, k: Tensor, v: Tensor) -> tuple[Projected, Tensor]:
        return self._projected(k, self.norm_k), _split(v, self.heads)

    def _projected(self, x: Tensor, norm: RMSNorm) -> Projected:
        return Projected(x, norm, self.heads)


class CrossAttention(Projections):
    """Attention over the prompt, padding included, as the model was trained."""

    def forward(self, x: Rows, text: TextKVCache) -> Tensor:
        """x `[B, L, C]` → `[B, L, C]`."""
        return self.o(text.attend(self.layer, _split(self.norm_q(self.q(x)), self.heads)).flatten(2))

    def keys_values(self, context: Tensor) -> KeyValue:
        """Embedded prompts `[P, text_len, C]` → normalised k, and v, `[P, text_len, H, D]` each."""
        k, v = products(context, self.k, self.v)
        return KeyValue(_split(self.norm_k(k), self.heads), _split(v, self.heads))


class Layer(nn.Module):
    """Self-attention, cross-attention and feed-forward. The timestep modulates the first and the last (adaLN)."""

    def __init__(self, config: WanConfig, layer: int, ops: Ops, factory: dict[str, Any]) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn = SelfAttention(config, layer, ops, factory)
        self.norm3 = LayerNorm(config.dim, factory)
        self.cross_attn = CrossAttention(config, layer, ops, factory)
        self.ffn = two_linears((config.dim, config.ffn_dim, config.dim), nn.GELU(approximate="tanh"), ops, factory)
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim, **factory) / config.dim**0.5)

    def forward(self, x: Tensor, e: Tensor, text: TextKVCache, kv: KVCache, rope: Rope) -> Tensor:
        """x `[B, L, C]`, e `[B, F, 6, C]`, the projected timestep embedding of each latent frame → `[B, L, C]`."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self._modulation(e)
        attn, norm3 = self.self_attn, self.norm3
        y = attn(modulated_norm((attn.q, attn.k, attn.v), x, scale1, shift1, self.eps), kv, rope)
        x, h = residual_norm(self.cross_attn.q, x, y, gate1, norm3.weight, norm3.bias, self.eps)
        y = self.cross_attn(h, text)
        x, h = residual_modulate(self.ffn[0], x, y, None, scale2, shift2, self.eps)
        return gate_residual(x, feed_forward(self.ffn, h), gate2)

    def store(self, x: Tensor, e: Tensor, kv: KVCache, rope: Rope) -> None:
        """Stores this layer's K/V and computes nothing else, which is enough for the last layer in a clean pass."""
        shift, scale, *_ = self._modulation(e)
        attn = self.self_attn
        k, v = attn.keys_values(modulated_norm((attn.k, attn.v), x, scale, shift, self.eps))
        kv.store(attn.layer, k, v, rope)

    def _modulation(self, e: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of self-attention, then of the feed-forward, `[B, F, C]` each."""
        return (self.modulation.to(e) + e).unbind(2)


class Head(nn.Module):
    """Modulated norm and projection of tokens to patches of the flow."""

    def __init__(self, config: WanConfig, features: int, ops: Ops, factory: dict[str, Any]) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = ops.Linear(config.dim, features, **factory)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim, **factory) / config.dim**0.5)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """x `[B, L, C]`, e `[B, F, C]`, the timestep embedding before its projection → `[B, L, features]`."""
        shift, scale = (self.modulation.to(e) + e.unsqueeze(2)).unbind(2)
        return self.head(layer_norm_modulate(x, scale, shift, self.eps))


def two_linears(
    widths: tuple[int, int, int], activation: nn.Module, ops: Ops, factory: dict[str, Any]
) -> nn.Sequential:
    """Two linear layers with an activation between them. widths: of the input, between the layers and of the output."""
    first, second = (ops.Linear(*pair, **factory) for pair in pairwise(widths))
    return nn.Sequential(first, activation, second)


def _split(x: Tensor, heads: int) -> Tensor:
    """`[B, L, C]` → `[B, L, H, D]`."""
    return x.unflatten(-1, (heads, -1))
