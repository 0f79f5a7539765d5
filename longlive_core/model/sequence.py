"""Ranks that share the tokens of a block: a layer computes the own tokens, and its attention all tokens of own heads.

Each rank has a share of the tokens of every latent frame, so that shares are as equal for eight frames as for nine and
the modulation by latent frames stays as it is. Two ranks, two frames of four tokens:

    tokens of a layer     rank 0   0 1 . .  0 1 . .        attention     rank 0   all tokens, heads 0 … H/2 − 1
                          rank 1   . . 2 3  . . 2 3                      rank 1   all tokens, heads H/2 … H − 1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..parallel import Ranks, all_gather_for_loss, heads_to_tokens, tokens_to_heads
from .kv_cache import KVCache, Projected
from .rope import Rope


def own_tokens(x: Tensor, ranks: Ranks, frame: int) -> Tensor:
    """The own tokens, `[B, F · own, C]`, of all tokens, `[B, F · frame, C]`. frame: tokens of a latent frame."""
    if ranks.size == 1:
        return x
    return x.unflatten(1, (-1, frame))[:, :, ranks.own(frame)].flatten(1, 2)


def whole_tokens(x: Tensor, ranks: Ranks, frame: int) -> Tensor:
    """All tokens on each rank, `[B, F · frame, C]`, of the own tokens `[B, F · own, C]`."""
    if ranks.size == 1:
        return x
    return all_gather_for_loss(_by_frames(x, ranks, frame), ranks, 2, frame).flatten(1, 2)


@dataclass(frozen=True, slots=True)
class SequenceKV:
    """`KVCache` of a rank that has a share of the tokens: `kv` gets all tokens of its heads, exchanged before RoPE.

    The norms of q and k are over the full width, so they come before the exchange. frame: tokens of a latent frame.
    """

    kv: KVCache
    ranks: Ranks
    frame: int

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`; v and the result `[B, F · own, H, D]`, rope of all tokens."""
        q_own, k_own, v_own = self._exchange(q.rotated(None), k.rotated(None), v)
        attended = self.kv.attend(layer, _normalised(q_own), _normalised(k_own), v_own, rope)
        by_frames = attended.unflatten(1, (-1, self.frame))
        return heads_to_tokens(by_frames, self.ranks, v.shape[2]).flatten(1, 2)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """See `KVCache.store`."""
        k_own, v_own = self._exchange(k.rotated(None), v)
        self.kv.store(layer, _normalised(k_own), v_own, rope)

    def _exchange(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """`[B, F · own, H, D]` each → all tokens of the own heads, `[B, F · frame, own heads, D]`, in one exchange."""
        stacked = torch.stack([_by_frames(part, self.ranks, self.frame) for part in parts])
        return tokens_to_heads(stacked, self.ranks, self.frame).flatten(2, 3).unbind(0)


def _by_frames(x: Tensor, ranks: Ranks, frame: int) -> Tensor:
    """`[B, F · own, …]` → `[B, F, own, …]`."""
    return x.unflatten(1, (-1, ranks.shares(frame)[ranks.rank]))


def _normalised(x: Tensor) -> Projected:
    """q or k that is normalised already, `[B, L, own heads, D]`."""
    return Projected(x.flatten(2), None, x.shape[2])
