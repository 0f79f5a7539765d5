"""The lock on the sampling device, and the models that are loaded on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ..longlive_core.oom import free_memory
from ..longlive_core.pipeline.shared_lock import SharedLock


class DeviceLock:
    """A lock to hold while work is submitted to the device; a chain of streams shares one.

        with device_lock.work():
            model(...)

    The host's weight streaming is not thread-safe, and loading a model may unload another one. On a GPU, a thread that
    moves weights therefore has the lock for itself: `with device_lock`. Threads whose weights stay in place share it,
    so that sampling and decoding are submitted side by side. On a CPU the lock does nothing.

    models: those of the current run. stays: whether all their weights stay on the device once they are there.
    """

    def __init__(self, device: torch.device) -> None:
        """device: the device that samples."""
        self._device = device
        self._lock = None if device.type == "cpu" else SharedLock()
        self.models: tuple[ModelPatcher, ...] = ()
        self.stays = device.type == "cpu"
        self._memory, self._is_loaded = 0, False

    def __enter__(self) -> DeviceLock:
        if self._lock is not None:
            self._lock.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        if self._lock is not None:
            self._lock.__exit__(*error)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Holds the lock while work of the run's models is submitted, beside other threads if no weights move."""
        with nullcontext() if self._lock is None else self._lock.shared() if self._loaded() else self._lock:
            yield

    def load(self, models: Sequence[ModelPatcher], memory: int) -> None:
        """Loads the models of a run in place of the previous ones. memory: bytes of VRAM needed besides the weights."""
        with self:
            self.models, self._memory = tuple(models), memory
            comfy.model_management.load_models_gpu(list(self.models), memory_required=memory)
            self.stays, self._is_loaded = self._device.type == "cpu" or self._fits(), False

    def end_run(self) -> None:
        """Ends the run: its models may be unloaded."""
        self.models = ()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Allows other models to be loaded: waits for queued work first and reloads the run's models afterwards."""
        with self:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            try:
                yield
            finally:
                self.reload()

    def reload(self) -> None:
        """Loads the run's models again after other models may have unloaded them."""
        if self.models and self._device.type != "cpu":
            self.load(self.models, self._memory)

    def free_vram(self) -> None:
        """Frees VRAM before a retry: unloads every model that the run does not use."""
        with self:
            if self._device.type != "cpu":
                comfy.model_management.free_memory(1e30, self._device, keep_loaded=self._in_use())
            free_memory()
            comfy.model_management.soft_empty_cache()

    def _fits(self) -> bool:
        """Whether the weights of all models and the memory of the run fit on the device together.

        With DynamicVRAM weights come to the device when they are first used, and leave it when there is no space.
        """
        dynamic = [model for model in self.models if model.is_dynamic()]
        if any(model.model.model_lowvram for model in self.models if model not in dynamic):
            return False
        missing = sum(max(0, model.model_size() - model.loaded_size()) for model in dynamic)
        return not dynamic or missing + self._memory <= comfy.model_management.get_free_memory(self._device)

    def _loaded(self) -> bool:
        """Whether the weights of all models are on the device and stay there."""
        self._is_loaded = self._is_loaded or (
            self.stays and all(m.loaded_size() >= m.model_size() for m in self.models if m.is_dynamic())
        )
        return self._is_loaded

    def _in_use(self) -> list[comfy.model_management.LoadedModel]:
        """The host's list entries of the run's models and of their additional models."""
        models = [*self.models, *(more for model in self.models for more in model.model_patches_models())]
        loaded = comfy.model_management.current_loaded_models
        return [entry for entry in loaded if any(entry.model is model for model in models)]
