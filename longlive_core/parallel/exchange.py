"""Collectives over the ranks of a sequence. For one rank each returns its input and never uses torch.distributed.

The exchange of heads is that of DeepSpeed-Ulysses (arXiv 2309.14509). Three heads a, b, c of four tokens on two ranks:

    by tokens    rank 0   tokens 0 1 of a b c          by heads    rank 0   tokens 0 1 2 3 of a
                 rank 1   tokens 2 3 of a b c                      rank 1   tokens 0 1 2 3 of b c
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from .ranks import Ranks


def tokens_to_heads(x: Tensor, ranks: Ranks, tokens: int) -> Tensor:
    """All tokens of the own heads, `[…, tokens, own heads, D]`, of the own tokens of all heads, `[…, L, H, D]`.

    The gradient takes the way back.
    """
    return _swapped(x, ranks, split=-2, joined=-3, count=tokens)


def heads_to_tokens(x: Tensor, ranks: Ranks, heads: int) -> Tensor:
    """The own tokens of all heads, `[…, own tokens, heads, D]`, of all tokens of the own heads, `[…, L, H, D]`.

    The gradient takes the way back.
    """
    return _swapped(x, ranks, split=-3, joined=-2, count=heads)


def _swapped(x: Tensor, ranks: Ranks, *, split: int, joined: int, count: int) -> Tensor:
    """Splits one dimension among the ranks, and joins the `count` entries of another one, of which each has a share."""
    if ranks.size == 1:
        return x
    own = ranks.shares(x.shape[split])
    shapes: list[list[int]] = []
    for share in ranks.shares(count):
        shapes.append(list(x.shape))
        shapes[-1][split], shapes[-1][joined] = own[ranks.rank], share
    return torch.cat(_exchange(x.split(own, dim=split), shapes, ranks), dim=joined)


def all_gather(x: Tensor, ranks: Ranks, dim: int, count: int) -> Tensor:
    """The whole tensor on each rank, of which each has its own of `count` entries along a dimension; see `Ranks.own`.

    Any dtype; without a gradient.
    """
    return all_gather_shares(x, ranks, dim, ranks.shares(count))


def all_gather_shares(x: Tensor, ranks: Ranks, dim: int, shares: Sequence[int]) -> Tensor:
    """As `all_gather`, of shares of any length, in rank order."""
    if ranks.size == 1:
        return x
    shapes: list[list[int]] = []
    for share in shares:
        shapes.append(list(x.shape))
        shapes[-1][dim] = share
    return torch.cat(_exchange([x] * ranks.size, shapes, ranks), dim=dim)


def all_gather_for_loss(x: Tensor, ranks: Ranks, dim: int, count: int) -> Tensor:
    """As `all_gather`, with a gradient, for a loss that every rank computes of the whole.

    The mean over the ranks of a weight's gradients is then its gradient: the own part has that of the loss, times the
    number of ranks.
    """
    if ranks.size == 1:
        return x
    gathered: Tensor = _Gather.apply(x, ranks, dim, count)
    return gathered


def scatter_parts(
    parts: Sequence[Tensor] | None, shapes: Sequence[Sequence[int]], like: Tensor, ranks: Ranks
) -> Tensor:
    """The own part of what the first rank has; the other ranks give None. Parts may overlap in the first rank's memory.

    shapes: of all parts, on every rank. like: a tensor of their dtype on the own device.
    """
    if ranks.rank == 0 and parts is not None:
        if ranks.size > 1:
            import torch.distributed as dist

            for rank, part in enumerate(parts[1:], 1):
                if part.numel():
                    dist.send(part.contiguous(), group=ranks.group, group_dst=rank)
        return parts[0]
    import torch.distributed as dist

    own = like.new_empty(*shapes[ranks.rank])
    if own.numel():
        dist.recv(own, group=ranks.group, group_src=0)
    return own


def all_max(x: Tensor, ranks: Ranks) -> Tensor:
    """The largest of all ranks' numbers for each element of x, float32 of any shape, in a new tensor."""
    return _reduced(x, ranks, "MAX")


def all_sum(x: Tensor, ranks: Ranks) -> Tensor:
    """The sum of all ranks' numbers for each element of x, float32 of any shape; without a gradient."""
    return _reduced(x, ranks, "SUM")


def _reduced(x: Tensor, ranks: Ranks, op: str) -> Tensor:
    if ranks.size == 1:
        return x
    import torch.distributed as dist

    x = x.detach().clone()
    dist.all_reduce(x, getattr(dist.ReduceOp, op), ranks.group)
    return x


def _exchange(pieces: Sequence[Tensor], shapes: Sequence[Sequence[int]], ranks: Ranks) -> list[Tensor]:
    """Sends a piece to each rank, and returns those received from each, of the given shapes."""
    dtype = pieces[0].dtype
    # Gloo does not know every dtype of one byte, such as E4M3.
    as_bytes = dtype.itemsize == 1
    flat = torch.cat([piece.reshape(-1) for piece in pieces])
    sent, received = [piece.numel() for piece in pieces], [prod(shape) for shape in shapes]
    ranks.traffic.sent += (flat.numel() - sent[ranks.rank]) * dtype.itemsize
    ranks.traffic.exchanges += 1
    result: Tensor = _AllToAll.apply(flat.view(torch.uint8) if as_bytes else flat, sent, received, ranks)
    result = result.view(dtype) if as_bytes else result
    return [part.view(*shape) for part, shape in zip(result.split(received), shapes, strict=True)]


class _Gather(torch.autograd.Function):
    """`all_gather`; see `all_gather_for_loss` for its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks, dim: int, count: int) -> Tensor:  # noqa: ANN401
        ctx.ranks, ctx.dim, ctx.count = ranks, dim, count
        return all_gather(x, ranks, dim, count)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        own = ctx.ranks.own(ctx.count)
        return ctx.ranks.size * grads[0].narrow(ctx.dim, own.start, own.stop - own.start), None, None, None


class _AllToAll(torch.autograd.Function):
    """The all-to-all of torch.distributed on flat tensors; its gradient is the all-to-all in the other direction."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, sent: list[int], received: list[int], ranks: Ranks) -> Tensor:  # noqa: ANN401
        import torch.distributed as dist

        ctx.sent, ctx.received, ctx.ranks = sent, received, ranks
        output = flat.new_empty(sum(received))
        dist.all_to_all_single(output, flat.contiguous(), received, sent, group=ranks.group)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        return _AllToAll.apply(grads[0], ctx.received, ctx.sent, ctx.ranks), None, None, None
