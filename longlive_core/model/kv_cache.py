"""What attention asks of a KV cache, and the keys and values that it gives.

Shapes: as in `layers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from ...kernels import rms_norm_rope
from .norms import RMSNorm
from .rope import Rope


class KeyValue(NamedTuple):
    """Keys and values, `[B, L, H, D]` each."""

    k: Tensor
    v: Tensor


@dataclass(frozen=True, slots=True)
class Projected:
    """q or k of new tokens after the projection, `[B, L, C]`, not yet normalised or rotated.

    Norm and RoPE are left to the KV cache, which writes keys to their slot in the same op. norm: None after an exchange
    of heads (`SequenceKV`), which needs the norm over the full width before it.
    """

    x: Tensor
    norm: RMSNorm | None
    heads: int

    def rotated(self, rope: Rope | None, out: Tensor | None = None) -> Tensor:
        """Normalises over the full width and rotates unless `rope` is None, → `[B, L, H, D]`, in `out` if given."""
        if self.norm is None:
            x = self.x.unflatten(-1, (self.heads, -1))
            x = x if rope is None else rope.rotate(x)
            return x if out is None else out.copy_(x)
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
