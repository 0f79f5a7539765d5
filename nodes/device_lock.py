"""Whose turn it is to give the device work, and the models that are there for it."""

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
    """Held while the device is given work; one for a whole chain of streams.

        with turn:
            model(...)

    The host's weight streaming is not made for two threads, and a model that is loaded may push another one out: where
    weights move, model calls, VAE slices and text encoders take turns. On a CPU they stay where they are, and nobody
    waits.

    models: what the drawing under way has loaded.
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
        """Onto their devices, with that many bytes beside them; in place of those that were loaded before."""
        with self:
            self.models, self._memory = tuple(models), memory
            comfy.model_management.load_models_gpu(list(self.models), memory_required=memory)

    def forget(self) -> None:
        """The drawing is over."""
        self.models = ()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Other models may be loaded meanwhile: what the device was given is done first, and `reload` follows."""
        with self:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            try:
                yield
            finally:
                self.reload()

    def reload(self) -> None:
        """Brings back what other models may have pushed out."""
        if self.models and self._device.type != "cpu":
            self.load(self.models, self._memory)

    def free_vram(self) -> None:
        """Before work that ran out of memory is done once more: all goes that the drawing has no use for."""
        with self:
            if self._device.type != "cpu":
                comfy.model_management.free_memory(1e30, self._device, keep_loaded=self._kept())
            free_memory()
            comfy.model_management.soft_empty_cache()

    def _kept(self) -> list[comfy.model_management.LoadedModel]:
        """As the host lists them, with those that come with a model."""
        kept = [*self.models, *(more for model in self.models for more in model.model_patches_models())]
        return [
            one for one in comfy.model_management.current_loaded_models if any(one.model is model for model in kept)
        ]
