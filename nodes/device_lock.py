"""The lock on the sampling device, and the models that are loaded on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ..longlive_core.oom import free_memory


class DeviceLock:
    """A lock to hold while work is submitted to the device; a chain of streams shares one.

        with device_lock:
            model(...)

    The host's weight streaming is not thread-safe, and loading a model may unload another one. On a GPU, only one
    thread at a time therefore runs the model, the VAE or the text encoder. On a CPU weights stay in place and the lock
    does nothing. `models` are the models of the current run.
    """

    def __init__(self, device: torch.device) -> None:
        """device: the device that samples."""
        self._device = device
        self._lock: AbstractContextManager[Any] = nullcontext() if device.type == "cpu" else RLock()
        self.models: tuple[ModelPatcher, ...] = ()
        self._memory = 0

    def __enter__(self) -> DeviceLock:
        self._lock.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        self._lock.__exit__(*error)

    def load(self, models: Sequence[ModelPatcher], memory: int) -> None:
        """Loads the models of a run in place of the previous ones. memory: bytes of VRAM needed besides the weights."""
        with self:
            self.models, self._memory = tuple(models), memory
            comfy.model_management.load_models_gpu(list(self.models), memory_required=memory)

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

    def _in_use(self) -> list[comfy.model_management.LoadedModel]:
        """The host's list entries of the run's models and of their additional models."""
        models = [*self.models, *(more for model in self.models for more in model.model_patches_models())]
        loaded = comfy.model_management.current_loaded_models
        return [entry for entry in loaded if any(entry.model is model for model in models)]
