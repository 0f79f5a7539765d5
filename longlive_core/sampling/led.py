"""The model and the KV cache of rank 0, whose every step the other ranks take too; only rank 0 knows of the film.

Window, prompts, seeds and solver are on rank 0. A call carries the blocks in the slots, so that each rank attends the
same ones; the K/V of a prompt, which cross-attention of any token needs whole, are computed on each rank.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..memory import BlockKVCache, PromptKV
from ..memory.block_cache import RelativeRope
from ..memory.formats import Pool, PoolSpec
from ..memory.pools import check_whole, restore_own, whole_tensors
from ..model import CausalWan, KeyValue, KVCache, Rope, TextKVCache
from ..model.attention import Attention
from ..parallel import Calls, Leader, Ranks, check_size
from .generate import rounds_together


class RankModel:
    """The model of one rank, which has all weights, and its attention."""

    def __init__(self, model: CausalWan, attention: Attention) -> None:
        self.model, self.attention = model, attention


class PromptLayers(list[KeyValue]):
    """The K/V of a prompt for each layer. A class of its own, because references to a tuple cannot be weak."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What a `BlockKVCache` is made of, apart from pool, attention and angles."""

    blocks: tuple[int, ...]
    slot: int
    block_frames: int
    clean: bool


class LedModel:
    """`FlowModel` and `Pools` of rank 0, for `generate`, of a model that all ranks have.

    own: the model of this rank. load: called on each other rank with its `Ranks` and the arguments, gives the same
    model there. size: of a film, (height, width) of its latents. Raises ValueError for a model or a size that the ranks
    cannot share, before any of them does anything, and RankError if one fails in any call.

    ranks: how many share a sequence. branches: of guidance that have ranks of their own.
    """

    branches = 1

    def __init__(
        self,
        leader: Leader,
        size: tuple[int, int],
        own: RankModel,
        load: Callable[..., RankModel],
        *arguments: Any,  # noqa: ANN401
    ) -> None:
        model = own.model
        self.ranks = leader.ranks.size // self.branches
        check_shared(model, size, self.ranks)
        self._leader: Calls = leader
        self._rank = leader.make(load, *arguments, own=own)
        self.config, self.dtype, self.device = model.config, model.dtype, model.device

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        """See `CausalWan.forward`."""
        return self._leader.call(flow_of_rank, *self._arguments(x, t, text, kv, positions))

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        """See `CausalWan.write_kv`."""
        self._leader.call(write_kv_of_rank, *self._arguments(x, t, text, kv, positions))

    def text_kv(self, text: Tensor) -> PromptLayers:
        """See `CausalWan.text_kv`."""
        return self._leader.make(text_kv_of_rank, self._rank, text)

    def make(self, spec: PoolSpec, device: torch.device) -> tuple[Pool, ...]:  # noqa: ARG002
        """See `Pools.make`; the pools of this rank, with its share of the heads."""
        return self._leader.make(pools_of_rank, spec)

    def save(self, pool: Pool, filled: int, films: slice) -> tuple[Tensor, ...]:
        """See `Pools.save`; the heads of all ranks."""
        return self._leader.call(_save, pool, filled, films)

    def restore(self, pool: Pool, tensors: Sequence[Tensor], filled: int, films: slice) -> None:
        """See `Pools.restore`; `tensors` have the heads of all ranks."""
        check_whole(pool, tensors, filled, films)
        self._leader.call(_restore, pool, filled, films, *tensors)

    def move(self, pool: Pool, source: int, target: int) -> None:
        """See `Pools.move`; in the pools of all ranks."""
        self._leader.call(_move, pool, source, target)

    def _arguments(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> tuple[Any, ...]:
        """The arguments of `flow_of_rank`."""
        assert isinstance(text, PromptKV) and isinstance(kv, BlockKVCache)  # those of `FilmKVCache`
        assert isinstance(kv.slot, int)  # a led model is no module, so that it has no CUDA graphs
        call = _Call(kv.blocks, kv.slot, kv.block_frames, kv.clean)
        ropes = () if kv.relative is None else (kv.relative.keys, kv.relative.queries)
        angles = (angle for rope in ropes for angle in (rope.cos, rope.sin))
        return self._rank, kv.pool, text.layers, call, x, t, positions, *angles


def check_shared(model: CausalWan, size: tuple[int, int], count: int) -> None:
    """Raises ValueError unless so many ranks can share a model for latents of this size, (height, width)."""
    check_size(count, model.config.num_heads, prod(model.config.grid(*size)))
    if count > 1 and rounds_together(model):
        raise ValueError(
            f"{count} ranks: this model rounds activations to NVFP4 with one amax over all tokens (W4A4), of which "
            "each rank has a share; use one rank, or load the model with activations in bf16"
        )


def flow_of_rank(
    ranks: Ranks,
    rank: RankModel,
    pool: Pool,
    layers: Sequence[KeyValue],
    call: _Call,
    x: Tensor,
    t: Tensor,
    positions: Tensor,
    *angles: Tensor,
) -> Tensor:
    """`CausalWan.forward` on one rank. angles: cos and sin of the keys, then of the queries, for relative RoPE."""
    x, t, positions, *here = _here(ranks, x, t, positions, *angles)
    text, kv = _caches(rank, pool, layers, call, here)
    return rank.model(x, t, text, kv, positions, ranks=ranks)


def write_kv_of_rank(
    ranks: Ranks,
    rank: RankModel,
    pool: Pool,
    layers: Sequence[KeyValue],
    call: _Call,
    x: Tensor,
    t: Tensor,
    positions: Tensor,
    *angles: Tensor,
) -> None:
    """`CausalWan.write_kv` on one rank; arguments of `flow_of_rank`."""
    x, t, positions, *here = _here(ranks, x, t, positions, *angles)
    text, kv = _caches(rank, pool, layers, call, here)
    rank.model.write_kv(x, t, text, kv, positions, ranks=ranks)


def _caches(
    rank: RankModel, pool: Pool, layers: Sequence[KeyValue], call: _Call, angles: Sequence[Tensor]
) -> tuple[PromptKV, BlockKVCache]:
    relative = RelativeRope(Rope(*angles[:2]), Rope(*angles[2:])) if angles else None
    kv = BlockKVCache(pool, call.blocks, call.slot, call.block_frames, call.clean, rank.attention, relative)
    return PromptKV(layers, rank.attention), kv


def _here(ranks: Ranks, *tensors: Tensor) -> list[Tensor]:
    """Tensors on the device of a rank: those of a `RemoteModel` come from the CPU."""
    return [tensor.to(ranks.device) for tensor in tensors]


def text_kv_of_rank(ranks: Ranks, rank: RankModel, text: Tensor) -> PromptLayers:
    """`CausalWan.text_kv` on one rank."""
    return PromptLayers(rank.model.text_kv(text.to(ranks.device)))


def pools_of_rank(ranks: Ranks, spec: PoolSpec) -> tuple[Pool, ...]:
    """The pools of one rank, with its share of the heads."""
    return spec.for_rank(ranks).make(torch.device(ranks.device))


def _save(ranks: Ranks, pool: Pool, filled: int, films: slice) -> tuple[Tensor, ...]:
    """The copies of `Pools.save` on rank 0, nothing on the others."""
    tensors = whole_tensors(pool, filled, films)
    if ranks.rank:
        deque(tensors, maxlen=0)
        return ()
    return tuple(tensor.to("cpu", copy=True).contiguous() for tensor in tensors)


def _restore(_: Ranks, pool: Pool, filled: int, films: slice, *tensors: Tensor) -> None:
    restore_own(pool, tensors, filled, films)


def _move(_: Ranks, pool: Pool, source: int, target: int) -> None:
    pool.move(source, target)
