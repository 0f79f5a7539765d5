"""The stage of autoregressive training. `ar.py` has one step of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..model import CausalWan
from ..model.nvfp4_training import train_in_nvfp4
from ..parallel import ALONE, Ranks, all_sum
from .ar import ar_step, step_errors
from .ar_inputs import ARBatch, ar_inputs, random_draws
from .ar_settings import ARSettings
from .error_recycling import BlockErrors, ErrorBuffers
from .schedule import TimestepTable
from .stage import Loss, OptimiserSettings, Origin, Trained

# Streams of random numbers, so that no two uses of a seed share their draws.
_STEP, _STORE, _VALIDATION, _ROUNDING = 1, 2, 3, 4


class ARSource(Protocol):
    """Where batches come from."""

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        """Returns a batch that depends on `rng` only."""
        ...


class ARStage:
    """Stage of the trainer for autoregressive training. A loss depends on (seed, step, part) and on the stored errors.

    model: its parameters that require gradients are trained. train, validation: where batches come from; every
    validation uses the same `validation_batches` batches and noise, without errors. module: what is trained, if that is
    more than the model, such as the model and its text encoder. origins: the base and the data. ranks: processes that
    share each film; all have the same seed and data, and a loss is that of the own share. With `settings.nvfp4`
    the linear layers of the model's blocks train in NVFP4; see `train_in_nvfp4` for the errors that this raises.

    The errors of a step are stored when the next step begins. So the parts of one step do not depend on each other, and
    a step that was interrupted between its parts can be repeated.
    """

    name = "ar"

    def __init__(
        self,
        model: CausalWan,
        train: ARSource,
        settings: ARSettings,
        optimiser: OptimiserSettings,
        seed: int,
        *,
        validation: ARSource | None = None,
        validation_batches: int = 8,
        module: nn.Module | None = None,
        origins: Mapping[str, Origin] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.model, self.train, self.settings, self.seed = model, train, settings, seed
        self.validation, self.validation_batches = validation, validation_batches
        self.origins = {} if origins is None else origins
        self._noise = None if settings.nvfp4 is None else train_in_nvfp4(model, settings.nvfp4, ranks)
        self.table = TimestepTable.shifted(settings.shift)
        if settings.weighting == "uniform":
            self.table = replace(self.table, weights=torch.ones_like(self.table.weights))
        self.trained = (Trained("model", model if module is None else module, optimiser),)
        recycling = settings.error_recycling
        self.buffers = None if recycling is None else ErrorBuffers(recycling)
        self._new_errors: dict[tuple[int, int], list[BlockErrors]] = {}

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """Returns the loss of one batch. See `Stage.loss`."""
        del name
        self._store_errors(before=step)
        if self._noise is not None:
            self._noise.restart(self._random(_ROUNDING, step, part)[2].initial_seed())
        numpy_rng, python_rng, generator = self._random(_STEP, step, part)
        batch = self.train.batch(numpy_rng)
        draws = random_draws(batch, self.settings, self.table, generator)
        inputs = ar_inputs(batch, draws, self.settings, self.table, self.buffers, python_rng)
        result = ar_step(self.model, batch, inputs, self.settings, self.ranks)
        figures: dict[str, float] = {}
        if self.buffers is not None:
            figures = {"stored errors": float(len(self.buffers.latent)), "injections": float(len(inputs.injections))}
            if self.buffers.should_store(inputs.clean_step, python_rng):
                errors = step_errors(batch, draws, result, self.settings, self.table)
                self._new_errors[step, part] = [_on_cpu(error) for error in errors]
        return Loss(result.loss, figures, batch.name)

    def validation_loss(self, step: int, /) -> dict[str, float]:
        """Returns the mean loss of the validation batches as "validation", or {} if there are none."""
        del step
        if self.validation is None:
            return {}
        losses: list[float] = []
        with torch.no_grad():
            for number in range(self.validation_batches):
                numpy_rng, _, generator = self._random(_VALIDATION, number, 0)
                batch = self.validation.batch(numpy_rng)
                draws = random_draws(batch, self.settings, self.table, generator)
                inputs = ar_inputs(batch, draws, self.settings, self.table)
                loss = ar_step(self.model, batch, inputs, self.settings, self.ranks).loss
                losses.append(float(all_sum(loss, self.ranks)) / self.ranks.size)
        return {"validation": sum(losses) / len(losses)}

    def state_dict(self) -> dict[str, Any]:
        """Returns the stored errors, and those of the newest step that are not stored yet, by "step.part.number"."""
        if self.buffers is None:
            return {}
        new: dict[str, dict[str, Any]] = {
            f"{step}.{part}.{number}": {"index": error.index, "latent": error.latent, "noise": error.noise}
            for (step, part), errors in self._new_errors.items()
            for number, error in enumerate(errors)
        }
        return {**self.buffers.state_dict(), "new": new}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restores what `state_dict` returned. Raises ValueError for errors that this run cannot hold."""
        if self.buffers is None:
            if any(state.values()):
                raise ValueError("the checkpoint has stored errors, but this run has no error recycling; turn it on")
            return
        self.buffers.load_state_dict(state)
        self._new_errors = {}
        new: Mapping[str, Mapping[str, Any]] = state.get("new", {})
        for (step, part, _), name in sorted((_step_part_number(name), name) for name in new):
            error = BlockErrors(int(new[name]["index"]), new[name]["latent"], new[name]["noise"])
            self._new_errors.setdefault((step, part), []).append(error)

    def _store_errors(self, before: int) -> None:
        """Stores the errors of steps before `before`, and forgets those of `before`, which is repeated.

        Errors of the same step are those of its other parts, or of an interrupted run of it.
        """
        if self.buffers is None:
            return
        for (step, part), errors in sorted(self._new_errors.items(), key=lambda item: item[0]):
            if step < before:
                self.buffers.store(errors, self._random(_STORE, step, part)[1])
                del self._new_errors[step, part]

    def _random(self, stream: int, step: int, part: int) -> tuple[np.random.Generator, Random, torch.Generator]:
        rng = np.random.default_rng((self.seed, stream, step, part))
        return rng, Random(int(rng.integers(2**62))), torch.Generator().manual_seed(int(rng.integers(2**62)))


def _on_cpu(error: BlockErrors) -> BlockErrors:
    # Copies, because a slice would keep the errors of the whole batch in memory.
    return replace(error, latent=error.latent.to("cpu", copy=True), noise=error.noise.to("cpu", copy=True))


def _step_part_number(name: str) -> tuple[int, int, int]:
    step, part, number = name.split(".")
    return int(step), int(part), int(number)
