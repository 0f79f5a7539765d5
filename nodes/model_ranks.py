"""The processes that share a MODEL: when they start, how long they stay, and what the host sees of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock

import comfy.model_management
import comfy.model_patcher
import torch

from ..longlive_core.film.run_generation import StoppedError
from ..longlive_core.model import WanConfig
from ..longlive_core.parallel import CalledOffError, RankError, RankProcesses, Remote
from ..longlive_core.render.shared_model import SharedModel, load_shared
from ..longlive_core.sampling import RemoteModel, RemoteSplitModel


class ModelRanks:
    """The processes that share a MODEL, at most one MODEL at a time.

    They start when a film is sampled, and stay for the next one with the same MODEL. They end when another MODEL takes
    their place, when the host unloads `stand_in`, as it does to make room for other models, and with the host.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._processes: RankProcesses | None = None
        self._model: RemoteModel | None = None
        self._of: tuple[object, ...] = ()
        self._is_used = False
        self._stand_in: RanksPatcher | None = None

    @property
    def stand_in(self) -> comfy.model_patcher.ModelPatcher:
        """What the host loads, unloads, runs and cleans up in place of the MODEL."""
        if self._stand_in is None:
            self._stand_in = RanksPatcher(self)
        return self._stand_in

    def model(
        self,
        shared: SharedModel,
        gpus: int,
        config: WanConfig,
        should_stop: Callable[[], bool] | None,
        *,
        split_guidance: bool = False,
    ) -> RemoteModel:
        """The model, of processes that are started if there are none with it. split_guidance: see `SplitModel`.

        Raises RankError if one of them cannot load it, and StoppedError after a stop, which ends them.
        """
        wanted = (shared, shared.stamp, gpus, split_guidance)
        with self._lock:
            if self._model is not None and self._of == wanted and self._model.remote.processes.check():
                return self._model
            self._end("another model takes their place")
            device = comfy.model_management.get_torch_device().type
            threads = max(1, torch.get_num_threads() // gpus) if device == "cpu" else None
            self._processes = RankProcesses(gpus, device, threads)
            kind = RemoteSplitModel if split_guidance else RemoteModel
            try:
                self._model = kind(
                    Remote(self._processes), config, shared.dtype, load_shared, shared, should_stop=should_stop
                )
            except CalledOffError as error:
                raise StoppedError from error
            self._of = wanted
            return self._model

    def begin_run(self) -> None:
        """A run of a film begins: until it ends, the processes stay."""
        self._is_used = True

    def end_run(self) -> None:
        """A run has ended: the processes free its K/V."""
        self._is_used = False
        with self._lock:
            if self._model is not None and self._model.remote.processes.check():
                with suppress(RankError):  # the next run starts others
                    self._model.rest()

    def unloaded(self) -> None:
        """The host has unloaded `stand_in`."""
        if not self._is_used:
            with self._lock:
                self._end("the host has unloaded them")

    def _end(self, reason: str) -> None:
        self._model = None
        if self._processes is not None:
            self._processes.end(reason)
            self._processes = None


class LongLiveRanks(torch.nn.Module):
    """Has no weights in this process."""


class RanksPatcher(comfy.model_patcher.ModelPatcher):
    """Tells `ModelRanks` what the host does with its models."""

    def __init__(self, ranks: ModelRanks) -> None:
        device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
        super().__init__(LongLiveRanks(), load_device=device, offload_device=offload)
        self._ranks = ranks

    def pre_run(self) -> None:
        """Called before a run."""
        super().pre_run()
        self._ranks.begin_run()

    def cleanup(self) -> None:
        """Called after a run."""
        super().cleanup()
        self._ranks.end_run()

    def detach(self, unpatch_all: bool = True) -> torch.nn.Module:
        """Called when the host unloads it, and with False before it loads it again."""
        if unpatch_all:
            self._ranks.unloaded()
        return super().detach(unpatch_all)
