"""The parts of a Wan transformer. Attributes are named as in its state dict.

B batch, L tokens in the order (f, y, x), F latent frames, C model width, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...kernels import gate_residual, layer_norm_modulate, rms_norm
from .config import WanConfig
from .rope import Rope


class Ops(Protocol):
    """Where layers with weights come from: `torch.nn`, or a host's classes that cast, offload or quantise."""

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv3d(self) -> Callable[..., nn.Module]: ...
    @property
    def LayerNorm(self) -> Callable[..., nn.Module]: ...


class KeyValue(NamedTuple):
    """Keys and values, `[batch, tokens, H, D]` each."""

    k: Tensor
    v: Tensor


class FrameMemory(Protocol):
    """What self-attention attends: decides which frames are seen, where K/V live and when keys are rotated."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        """Takes the new tokens' normalised, unrotated q and k and their v, `[B, L, H, D]`; returns the same shape."""
        ...

    def store(self, layer: int, k: Tensor, v: Tensor, rope: Rope) -> None:
        """Keeps the new tokens' K/V without attending."""
        ...


class TextMemory(Protocol):
    """What cross-attention attends: keys and values of the prompt, made once by `CausalWan.text_keys`."""

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """q `[B, L, H, D]`, normalised; returns the same shape."""
        ...


class RMSNorm(nn.Module):
    """RMS norm over the full model width, all heads together, as Wan norms q and k."""

    def __init__(self, dim: int, eps: float, factory: dict[str, Any]) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, **factory))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Projections(nn.Module):
    """What both attentions share: q, k, v, o, and norms of q and k over the full width."""

    def __init__(self, config: WanConfig, layer: int, ops: Ops, factory: dict[str, Any]) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.num_heads
        self.q = ops.Linear(config.dim, config.dim, **factory)
        self.k = ops.Linear(config.dim, config.dim, **factory)
        self.v = ops.Linear(config.dim, config.dim, **factory)
        self.o = ops.Linear(config.dim, config.dim, **factory)
        self.norm_q = RMSNorm(config.dim, config.eps, factory)
        self.norm_k = RMSNorm(config.dim, config.eps, factory)

    def queries(self, x: Tensor) -> Tensor:
        """x `[B, L, C]` → q `[B, L, H, D]`, normalised but unrotated."""
        return _split(self.norm_q(self.q(x)), self.heads)

    def keys_values(self, x: Tensor) -> KeyValue:
        """x `[B, L, C]` → k, normalised but unrotated, and v, `[B, L, H, D]` each."""
        return KeyValue(_split(self.norm_k(self.k(x)), self.heads), _split(self.v(x), self.heads))


class SelfAttention(Projections):
    """Attention of the new tokens over whatever `FrameMemory` holds."""

    def forward(self, x: Tensor, kv: FrameMemory, rope: Rope) -> Tensor:
        k, v = self.keys_values(x)
        return self.o(kv.attend(self.layer, self.queries(x), k, v, rope).flatten(2))


class CrossAttention(Projections):
    """Attention over the prompt. Its padding is attended too: the model has never seen a mask there."""

    def forward(self, x: Tensor, text: TextMemory) -> Tensor:
        return self.o(text.attend(self.layer, self.queries(x)).flatten(2))


class Layer(nn.Module):
    """Self-attention, cross-attention and feed-forward; the first and the last modulated by the timestep (adaLN)."""

    def __init__(self, config: WanConfig, layer: int, ops: Ops, factory: dict[str, Any]) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn = SelfAttention(config, layer, ops, factory)
        self.norm3 = ops.LayerNorm(config.dim, eps=config.eps, elementwise_affine=True, **factory)
        self.cross_attn = CrossAttention(config, layer, ops, factory)
        self.ffn = nn.Sequential(
            ops.Linear(config.dim, config.ffn_dim, **factory),
            nn.GELU(approximate="tanh"),
            ops.Linear(config.ffn_dim, config.dim, **factory),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim, **factory) / config.dim**0.5)

    def forward(self, x: Tensor, e: Tensor, text: TextMemory, kv: FrameMemory, rope: Rope) -> Tensor:
        """x `[B, L, C]`, e `[B, F, 6, C]`: the projected timestep of each latent frame."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self._modulation(e)
        y = self.self_attn(layer_norm_modulate(x, scale1, shift1, self.eps), kv, rope)
        x = gate_residual(x, y, gate1)
        x = x + self.cross_attn(self.norm3(x), text)
        y = self.ffn(layer_norm_modulate(x, scale2, shift2, self.eps))
        return gate_residual(x, y, gate2)

    def store(self, x: Tensor, e: Tensor, kv: FrameMemory, rope: Rope) -> None:
        """Leaves this layer's K/V in memory, no more: all that a clean pass needs of the last layer."""
        shift, scale, *_ = self._modulation(e)
        k, v = self.self_attn.keys_values(layer_norm_modulate(x, scale, shift, self.eps))
        kv.store(self.self_attn.layer, k, v, rope)

    def _modulation(self, e: Tensor) -> tuple[Tensor, ...]:
        return (self.modulation.to(e) + e).unbind(2)


class Head(nn.Module):
    """Modulated norm and projection of tokens to patches of flow."""

    def __init__(self, config: WanConfig, features: int, ops: Ops, factory: dict[str, Any]) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = ops.Linear(config.dim, features, **factory)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim, **factory) / config.dim**0.5)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """x `[B, L, C]`, e `[B, F, C]`: the timestep embedding before its projection → `[B, L, features]`."""
        shift, scale = (self.modulation.to(e) + e.unsqueeze(2)).unbind(2)
        return self.head(layer_norm_modulate(x, scale, shift, self.eps))


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1))
