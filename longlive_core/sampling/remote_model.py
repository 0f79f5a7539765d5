"""The model and the KV cache of a program whose ranks are all other processes; see `RankProcesses`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..memory.formats import META, Pool, PoolSpec
from ..model import WanConfig
from ..oom import free_memory
from ..parallel import Ranks, Remote
from .led import LedModel, PromptLayers, RankModel, pools_of_rank, text_kv_of_rank
from .split import BRANCHES, SplitModel, branch_of_rank, check_branches, pools_of_branch, prompt_of_rank


class _Named:
    """Names the model of the ranks."""


class RemoteModel(LedModel):
    """`FlowModel` and `Pools` of a program that has neither weights nor K/V; the solver runs on its CPU.

    config: of the model that `load` gives on each rank with its `Ranks` and the arguments, dtype: in which it computes.
    should_stop: ends the ranks while they load. Raises RankError as `LedModel`, and CalledOffError.
    """

    def __init__(
        self,
        remote: Remote,
        config: WanConfig,
        dtype: torch.dtype,
        load: Callable[..., RankModel],
        *arguments: Any,  # noqa: ANN401
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._leader = self.remote = remote
        named: Any = _Named()
        self._rank = remote.make(load, *arguments, own=named, should_stop=should_stop)
        self.config, self.dtype, self.device = config, dtype, torch.device("cpu")

    def text_kv(self, text: Tensor) -> PromptLayers:
        """See `CausalWan.text_kv`; what is returned only names them."""
        return self.remote.make(text_kv_of_rank, self._rank, text, own=PromptLayers())

    def make(self, spec: PoolSpec, device: torch.device) -> tuple[Pool, ...]:  # noqa: ARG002
        """See `Pools.make`; what is returned only names them, and has no memory."""
        return self.remote.make(pools_of_rank, spec, own=spec.make(META))

    def rest(self) -> None:
        """Frees what the ranks keep for generations that are gone."""
        self.remote.call(_rest)


class RemoteSplitModel(RemoteModel, SplitModel):
    """`RemoteModel` whose ranks, an even number, are two groups, one for each branch of guidance; see `SplitModel`."""

    branches = BRANCHES

    def __init__(self, remote: Remote, *arguments: Any, should_stop: Callable[[], bool] | None = None) -> None:  # noqa: ANN401
        super().__init__(remote, *arguments, should_stop=should_stop)
        named: Any = _Named()
        self._branch = remote.make(branch_of_rank, own=named)

    def text_kv(self, text: Tensor) -> PromptLayers:
        """See `SplitModel.text_kv`; what is returned only names them."""
        named: Any = PromptLayers()
        self.remote.make(prompt_of_rank, self._rank, text, own=named)
        return named

    def make(self, spec: PoolSpec, device: torch.device) -> tuple[Pool, ...]:  # noqa: ARG002
        """See `SplitModel.make`; what is returned only names them, and has no memory."""
        check_branches(spec)
        return self.remote.make(pools_of_branch, self._branch, spec, own=spec.make(META))


def _rest(_: Ranks) -> None:
    free_memory()
