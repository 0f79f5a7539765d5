"""The lock on the device that samples, and the models that are loaded on it."""

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
    """Held while the device is given work; a chain of streams shares one.

        with device_lock:
            model(...)

    The host's weight streaming is not thread-safe, and loading a model may unload another one. Where weights move,
    model calls, VAE slices and text encoders therefore take turns. On a CPU weights stay in place, and nothing waits.

    models: loaded by the current run.
    """

    def __init__(self, device: torch.device) -> None:
        """device: the one that samples."""
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
        """Loads models with that many bytes of VRAM beside them, in place of the previous ones."""
        with self:
            self.models, self._memory = tuple(models), memory
            comfy.model_management.load_models_gpu(list(self.models), memory_required=memory)

    def end_run(self) -> None:
        """Ends the run: its models may be unloaded."""
        self.models = ()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Lets other models be loaded: first waits for queued work, afterwards reloads the run's models."""
        with self:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            try:
                yield
            finally:
                self.reload()

    def reload(self) -> None:
        """Loads the run's models again, which other models may have unloaded."""
        if self.models and self._device.type != "cpu":
            self.load(self.models, self._memory)

    def free_vram(self) -> None:
        """Frees VRAM before work is tried again: unloads every model that the run does not use."""
        with self:
            if self._device.type != "cpu":
                comfy.model_management.free_memory(1e30, self._device, keep_loaded=self._in_use())
            free_memory()
            comfy.model_management.soft_empty_cache()

    def _in_use(self) -> list[comfy.model_management.LoadedModel]:
        """The run's models, and those that come with them, as the host lists them."""
        models = [*self.models, *(more for model in self.models for more in model.model_patches_models())]
        return [
            one for one in comfy.model_management.current_loaded_models if any(one.model is model for model in models)
        ]
