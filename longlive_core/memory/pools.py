"""How a film makes, saves and restores its pools: those of one process, or of ranks that share the heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..parallel import Ranks, all_gather
from .formats import ALL, META, Pool, PoolSpec, check_saved, restore_pool
from .pool import PoolShape


class Pools(Protocol):
    """What a `FilmKVCache` needs of pools."""

    def make(self, spec: PoolSpec, device: torch.device) -> tuple[Pool, ...]:
        """See `PoolSpec.make`; device: that of the model."""
        ...

    def save(self, pool: Pool, filled: int, films: slice) -> tuple[Tensor, ...]:
        """Copies on the CPU of what is stored for the first `filled` slots, all heads of some films of a batch."""
        ...

    def restore(self, pool: Pool, tensors: Sequence[Tensor], filled: int, films: slice) -> None:
        """Restores what `save` gave. Raises ValueError as `restore_pool` does."""
        ...

    def move(self, pool: Pool, source: int, target: int) -> None:
        """Copies a slot to another one; see `DensePool.move`."""
        ...


class OwnPools:
    """The pools of one process, which has all heads."""

    make = staticmethod(PoolSpec.make)
    restore = staticmethod(restore_pool)

    def save(self, pool: Pool, filled: int, films: slice) -> tuple[Tensor, ...]:
        """See `Pools.save`."""
        return tuple(tensor[films].to("cpu", copy=True).contiguous() for tensor in pool.tensors(filled))

    def move(self, pool: Pool, source: int, target: int) -> None:
        """See `Pools.move`."""
        pool.move(source, target)


@dataclass(frozen=True, slots=True)
class RankPools:
    """The pools of one of several ranks that do the same, each with its share of the heads."""

    ranks: Ranks

    def make(self, spec: PoolSpec, device: torch.device) -> tuple[Pool, ...]:
        """See `Pools.make`."""
        return spec.for_rank(self.ranks).make(device)

    def save(self, pool: Pool, filled: int, films: slice) -> tuple[Tensor, ...]:
        """See `Pools.save`."""
        return tuple(tensor.to("cpu", copy=True).contiguous() for tensor in whole_tensors(pool, filled, films))

    def restore(self, pool: Pool, tensors: Sequence[Tensor], filled: int, films: slice) -> None:
        """See `Pools.restore`."""
        restore_own(pool, tensors, filled, films)

    def move(self, pool: Pool, source: int, target: int) -> None:
        """See `Pools.move`."""
        pool.move(source, target)


def whole_tensors(pool: Pool, filled: int, films: slice = ALL) -> Iterator[Tensor]:
    """Yields what the pools of all ranks store together, one tensor after another, as one rank would store it.

    Each rank must take all of them.
    """
    shape = pool.shape
    for tensor in pool.tensors(filled):
        own = tensor[films]
        yield (
            own
            if not _has_heads(own)
            else _joined(all_gather(_by_heads(own, shape), shape.ranks, -2, shape.heads), own)
        )


def restore_own(pool: Pool, tensors: Sequence[Tensor], filled: int, films: slice = ALL) -> None:
    """Copies the own heads of `tensors`, which `whole_tensors` gave, into a pool."""
    own, shape = pool.shape.ranks.own(pool.shape.heads), pool.shape
    for target, whole in zip(pool.tensors(filled), tensors, strict=True):
        if not _has_heads(whole):
            target[films].copy_(whole)
        else:
            view = whole if whole.ndim > 3 else whole.unflatten(-1, (shape.block_tokens, shape.heads, -1))
            _by_heads(target[films], shape).copy_(view[..., own, :])


def check_whole(pool: Pool, tensors: Sequence[Tensor], filled: int, films: slice = ALL) -> None:
    """Raises ValueError unless `tensors` are what `whole_tensors` would give."""
    check_saved(whole_like(pool, filled, films), tensors)


def whole_like(pool: Pool, filled: int, films: slice = ALL) -> list[Tensor]:
    """Tensors without memory of the shapes and dtypes that `whole_tensors` gives."""
    shape = pool.shape

    def like(tensor: Tensor) -> Tensor:
        own = tensor[films].to(META)
        if not _has_heads(own):
            return own
        by_heads = _by_heads(own, shape)
        size = (*by_heads.shape[:-2], shape.heads, by_heads.shape[-1])
        return _joined(torch.empty(size, dtype=own.dtype, device=META), own)

    return [like(tensor) for tensor in pool.tensors(filled)]


def _has_heads(tensor: Tensor) -> bool:
    """Whether a stored tensor has a part for each head: not the amax of blocks, nor a mean that is not there."""
    return tensor.ndim > 2 and tensor.shape[-2] > 0


def _by_heads(tensor: Tensor, shape: PoolShape) -> Tensor:
    """A view `[…, own heads, numbers of a head]` of a stored tensor. NVFP4 stores a slot as one row of numbers."""
    return tensor if tensor.ndim > 3 else tensor.unflatten(-1, (shape.block_tokens, shape.own_heads, -1))


def _joined(by_heads: Tensor, like: Tensor) -> Tensor:
    """`[…, heads, numbers of a head]` with the number of dimensions that the stored tensor `like` has."""
    return by_heads if like.ndim > 3 else by_heads.flatten(2)
