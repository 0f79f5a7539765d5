"""Guidance on two groups of ranks: each has one branch, and the ranks of a group share the sequence.

Four ranks; the mesh is data × sequence, with a branch in each place of the first dimension:

    prompt              rank 0   rank 1      all tokens, half of the heads each       K/V of the prompt's branch only
    negative prompt     rank 2   rank 3      all tokens, half of the heads each       K/V of the other branch only
                           └── one exchange of both flows in each step, ranks 0 and 2 ──► rank 0 combines them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..memory.film_cache import CallKV
from ..memory.formats import META, Pool, PoolSpec
from ..memory.pools import whole_like, whole_tensors
from ..model import CausalWan, KeyValue
from ..parallel import Leader, Mesh, Ranks, all_gather, all_gather_shares, make_mesh
from .led import LedModel, RankModel, flow_of_rank, write_kv_of_rank

BRANCHES = 2


class RankBranch:
    """The place of a rank in the mesh: `data` are the ranks of the other branch, `sequence` those of its own."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh


class LazyPrompt(Sequence[KeyValue]):
    """The K/V of a prompt for each layer, which only the ranks that attend it compute."""

    def __init__(self, model: CausalWan, text: Tensor) -> None:
        self._model, self._text, self._layers = model, text, list[KeyValue]()

    def __len__(self) -> int:
        return self._model.config.num_layers

    def __getitem__(self, layer: Any) -> Any:  # noqa: ANN401
        if not self._layers:
            self._layers += self._model.text_kv(self._text)
        return self._layers[layer]


class SplitModel(LedModel):
    """`LedModel` whose ranks are two groups, one for each branch of guidance; for films with guidance only.

    Raises ValueError as `check_split` and `LedModel`.
    """

    branches = BRANCHES

    def __init__(
        self,
        leader: Leader,
        size: tuple[int, int],
        own: RankModel,
        load: Callable[..., RankModel],
        *arguments: Any,  # noqa: ANN401
    ) -> None:
        check_split(leader.ranks.size)
        super().__init__(leader, size, own, load, *arguments)
        self._branch = leader.make(branch_of_rank)

    def flows(self, x: Tensor, t: Tensor, calls: Sequence[CallKV], positions: Tensor) -> list[Tensor]:
        """The flow of each branch; see `flows_of`."""
        return list(self._leader.call(_flows, self._branch, *self._both(x, t, calls, positions)))

    def write_all_kv(self, x: Tensor, t: Tensor, calls: Sequence[CallKV], positions: Tensor) -> None:
        """Writes the K/V of each branch; see `write_all_kv`."""
        self._leader.call(_write_kv, self._branch, *self._both(x, t, calls, positions))

    def text_kv(self, text: Tensor) -> Any:  # noqa: ANN401
        """See `CausalWan.text_kv`."""
        return self._leader.make(prompt_of_rank, self._rank, text)

    def make(self, spec: PoolSpec, device: torch.device) -> tuple[Pool, ...]:  # noqa: ARG002
        """See `Pools.make`; each rank has memory for the pool of its branch."""
        check_branches(spec)
        return self._leader.make(pools_of_branch, self._branch, spec)

    def save(self, pool: Pool, filled: int, films: slice) -> tuple[Tensor, ...]:
        """See `Pools.save`; the heads of all ranks of the pool's branch."""
        return self._leader.call(_save, self._branch, pool, filled, films)

    def _both(self, x: Tensor, t: Tensor, calls: Sequence[CallKV], positions: Tensor) -> tuple[Any, ...]:
        """Arguments of `_flows`: pool and prompt of the second branch, then those of `flow_of_rank` for the first."""
        first, (text, kv) = calls
        return kv.pool, text.layers, *self._arguments(x, t, *first, positions)


def check_split(count: int) -> None:
    """Raises ValueError unless so many ranks are two groups of the same size."""
    if count % BRANCHES:
        raise ValueError(
            f"{count} {'rank' if count == 1 else 'ranks'} cannot split guidance, whose two branches take half of them "
            "each; use --gpus 2, 4 or 8, or leave --split-guidance out"
        )


def check_branches(spec: PoolSpec) -> None:
    """Raises ValueError for the pools of a film without guidance."""
    if spec.count != BRANCHES:
        raise ValueError("guidance 1 has one branch, which cannot be split; set another guidance")


def branch_of_rank(ranks: Ranks) -> RankBranch:
    """The place of a rank."""
    return RankBranch(make_mesh(ranks.size // BRANCHES, ranks.device))


def prompt_of_rank(ranks: Ranks, rank: RankModel, text: Tensor) -> LazyPrompt:
    """The K/V of a prompt on a rank, which computes them if it attends it."""
    return LazyPrompt(rank.model, text.to(ranks.device))


def pools_of_branch(ranks: Ranks, branch: RankBranch, spec: PoolSpec) -> tuple[Pool, ...]:
    """The pool of the own branch, for the own share of the heads, and one without memory that names the other's."""
    one = replace(spec, count=1).for_rank(branch.mesh.sequence)
    devices = [META] * BRANCHES
    devices[branch.mesh.data.rank] = torch.device(ranks.device)
    return tuple(pool for device in devices for pool in one.make(device))


def _flows(_: Ranks, branch: RankBranch, pool: Pool, layers: Sequence[KeyValue], rank: RankModel, *first: Any) -> Any:  # noqa: ANN401
    """The flow of the own branch; on the first rank of a group those of both, `[2, B, C, F, H, W]`."""
    mesh = branch.mesh
    flow = flow_of_rank(mesh.sequence, rank, *_own(branch, pool, layers, *first))
    # The other ranks of a group have the same flow, which nobody needs there.
    return flow if mesh.sequence.rank else all_gather(flow[None], mesh.data, 0, BRANCHES)


def _write_kv(
    _: Ranks,
    branch: RankBranch,
    pool: Pool,
    layers: Sequence[KeyValue],
    rank: RankModel,
    *first: Any,  # noqa: ANN401
) -> None:
    write_kv_of_rank(branch.mesh.sequence, rank, *_own(branch, pool, layers, *first))


def _own(branch: RankBranch, pool: Pool, layers: Sequence[KeyValue], *first: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """The arguments of `flow_of_rank` after the model, for the own branch. pool, layers: of the second branch."""
    return first if branch.mesh.data.rank == 0 else (pool, layers, *first[2:])


def _save(ranks: Ranks, branch: RankBranch, pool: Pool, filled: int, films: slice) -> tuple[Tensor, ...]:
    """The copies of `Pools.save` on rank 0, to which the first rank of the other group sends those of its branch."""
    mesh, saved = branch.mesh, list[Tensor]()
    has_memory = pool.tensors(0)[0].device.type != "meta"
    is_sent = has_memory == bool(mesh.data.rank)  # the pool is of the second branch
    if not has_memory and (ranks.rank or not is_sent):
        return ()
    for whole in whole_tensors(pool, filled, films) if has_memory else whole_like(pool, filled, films):
        tensor = whole
        if is_sent and mesh.sequence.rank == 0:
            tensor = _sent(whole, ranks.device, mesh.data)
        if ranks.rank == 0:
            saved.append(tensor.to("cpu", copy=True).contiguous())
    return tuple(saved)


def _sent(whole: Tensor, device: str, pair: Ranks) -> Tensor:
    """A tensor of the second rank on both. whole: on the first one only its like without memory."""
    own = whole if pair.rank else torch.empty((0, *whole.shape[1:]), dtype=whole.dtype, device=device)
    return all_gather_shares(own, pair, 0, (0, len(whole)))
