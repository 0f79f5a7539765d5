"""Modules of the Wan transformer. Attributes are named as in its state dict.

Shapes: B batch, L tokens in the order (f, y, x), F latent frames, C model width, H heads, D head width, P prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...kernels import (
    gate_residual,
    gate_residual_modulate,
    gate_residual_norm,
    layer_norm_modulate,
    rms_norm,
    rms_norm_rope,
)
from .config import WanConfig
from .rope import Rope


class Ops(Protocol):
    """The classes of layers with weights: `torch.nn`, or a host's classes that cast, offload or quantise."""

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv3d(self) -> Callable[..., nn.Module]: ...


class KeyValue(NamedTuple):
    """Keys and values, `[B, L, H, D]` each."""

    k: Tensor
    v: Tensor


@dataclass(frozen=True, slots=True)
class Projected:
    """q or k of new tokens after the projection, `[B, L, C]`, not yet normalised or rotated.

    Norm and RoPE are left to the KV cache, which writes keys to their slot in the same op.
    """

    x: Tensor
    norm: RMSNorm
    heads: int

    def rotated(self, rope: Rope | None, out: Tensor | None = None) -> Tensor:
        """Normalises over the full width and rotates unless `rope` is None, → `[B, L, H, D]`, in `out` if given."""
        cos, sin = (None, None) if rope is None else (rope.cos, rope.sin)
        return rms_norm_rope(self.x, self.norm.weight, cos, sin, self.heads, self.norm.eps, out)

    def tokens(self, rows: slice) -> Projected:
        """Some of the tokens."""
        return Projected(self.x[:, rows], self.norm, self.heads)


class KVCache(Protocol):
    """The KV cache of self-attention: which frames are attended, where K/V are stored and how keys are rotated."""

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """Stores the new tokens' K/V and returns their attention over the cache, `[B, L, H, D]`; v `[B, L, H, D]`."""
        ...

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """Stores the new tokens' K/V, v `[B, L, H, D]`, without attention."""
        ...


class TextKVCache(Protocol):
    """The K/V of cross-attention: those of a prompt, which `CausalWan.text_kv` computes once."""

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """Attention of normalised q `[B, L, H, D]` over the prompt; returns the same shape."""
        ...


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

    def forward(self, x: Tensor, kv: KVCache, rope: Rope) -> Tensor:
        """x `[B, L, C]` → `[B, L, C]`."""
        q = Projected(self.q(x), self.norm_q, self.heads)
        return self.o(kv.attend(self.layer, q, *self.keys_values(x), rope).flatten(2))

    def keys_values(self, x: Tensor) -> tuple[Projected, Tensor]:
        """x `[B, L, C]` → k after its projection, and v `[B, L, H, D]`."""
        return Projected(self.k(x), self.norm_k, self.heads), _split(self.v(x), self.heads)


class CrossAttention(Projections):
    """Attention over the prompt, padding included, as the model was trained."""

    def forward(self, x: Tensor, text: TextKVCache) -> Tensor:
        """x `[B, L, C]` → `[B, L, C]`."""
        return self.o(text.attend(self.layer, _split(self.norm_q(self.q(x)), self.heads)).flatten(2))

    def keys_values(self, context: Tensor) -> KeyValue:
        """Embedded prompts `[P, text_len, C]` → normalised k, and v, `[P, text_len, H, D]` each."""
        return KeyValue(_split(self.norm_k(self.k(context)), self.heads), _split(self.v(context), self.heads))


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
        y = self.self_attn(layer_norm_modulate(x, scale1, shift1, self.eps), kv, rope)
        x, h = gate_residual_norm(x, y, gate1, self.norm3.weight, self.norm3.bias, self.eps)
        x, h = gate_residual_modulate(x, self.cross_attn(h, text), None, scale2, shift2, self.eps)
        return gate_residual(x, self.ffn(h), gate2)

    def store(self, x: Tensor, e: Tensor, kv: KVCache, rope: Rope) -> None:
        """Stores this layer's K/V and computes nothing else, which is enough for the last layer in a clean pass."""
        shift, scale, *_ = self._modulation(e)
        k, v = self.self_attn.keys_values(layer_norm_modulate(x, scale, shift, self.eps))
        kv.store(self.self_attn.layer, k, v, rope)

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
