"""Training of the autoregressive model by teacher forcing: one step as pure functions, and the stage of the trainer.

    draws   = random_draws(batch, settings, table, generator)    noise levels and noise
    inputs  = ar_inputs(batch, draws, settings, table, …)        what the model gets, and its target
    step    = ar_step(model, batch, inputs, settings)            flow, predicted clean latents and loss
    errors  = step_errors(batch, draws, step, settings, table)   what error recycling stores

Shapes: B films, C channels, F latent frames of h × w cells, n = F / blocks latent frames in a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..model import CausalWan
from ..types import BLOCK_FRAMES
from .error_recycling import BlockErrors, ErrorBuffers, ErrorRecyclingSettings, block_errors
from .losses import frame_losses, mean_over_frames
from .schedule import NoiseLevels, TimestepTable, add_noise, block_indices, clean_from_flow
from .stage import Loss, OptimiserSettings, Trained
from .teacher_forcing import History, teacher_forced_flow, window_history

# Streams of random numbers, so that no two uses of a seed share their draws.
_STEP, _STORE, _VALIDATION = 1, 2, 3


@dataclass(frozen=True, slots=True)
class ARSettings:
    """Settings of autoregressive training. The defaults are those of LongLive 2.0, except for float32 timesteps.

    block_frames: latent frames in a block. shift: of the timestep table. bf16_timesteps: round timesteps to bfloat16
    before use, as the reference does. context_noise: noise the clean latents that later blocks attend to, at a random
    timestep of the table up to this one; 0 turns it off. window: latent frames that a block attends to, itself
    included, as the KV cache does when it serves; 0 is the whole film, as in the reference. sink, shot_sink: with a
    window, latent frames at the start of the film that stay in it, and whether the first block of the shot does.
    checkpointing: compute activations again in the backward pass instead of keeping them. error_recycling: None turns
    it off. Raises ValueError if window or sink are not whole blocks.
    """

    block_frames: int = BLOCK_FRAMES
    shift: float = 5.0
    bf16_timesteps: bool = False
    context_noise: float = 0.0
    window: int = 0
    sink: int = BLOCK_FRAMES
    shot_sink: bool = True
    checkpointing: bool = False
    error_recycling: ErrorRecyclingSettings | None = None

    def __post_init__(self) -> None:
        if self.block_frames < 1:
            raise ValueError(f"a block needs one latent frame or more, not {self.block_frames}")
        for name, frames in (("window", self.window), ("sink", self.sink)):
            if self.window and (frames < 0 or frames % self.block_frames):
                raise ValueError(f"{name} of {frames} latent frames is not whole blocks of {self.block_frames}")
        if not 0 <= self.context_noise <= 1000:
            raise ValueError(f"context_noise {self.context_noise} is outside 0 … 1000")

    def history(self, cuts: tuple[bool, ...]) -> History | None:
        """Blocks that each block attends to, None for all earlier ones. cuts: whether each block starts a new shot."""
        if not self.window:
            return None
        slots, sinks = self.window // self.block_frames, self.sink // self.block_frames
        return window_history(cuts, slots, sinks=sinks, shot_sink=self.shot_sink)


@dataclass(frozen=True, slots=True)
class ARBatch:
    """Films of one training step.

    clean: latents `[B, C, F, h, w]`. text: embeddings of the distinct prompts, `[P, L, text_dim]`. prompts: row of
    `text` for each block, `[B, blocks]`. positions: RoPE positions in latent frames, `[F]` or `[B, F]`. cuts: whether
    each block starts a new shot; all films of a batch share their cuts, and only a window needs them. image: whether
    the first latent frame is given, as that of a start image. mask: latent frames that count, `[B, F]`, such as those
    that are no padding; None is all of them. name: of the batch, for messages.
    """

    clean: Tensor
    text: Tensor
    prompts: Tensor
    positions: Tensor
    cuts: tuple[bool, ...] = ()
    image: bool = False
    mask: Tensor | None = None
    name: str = ""


class ARSource(Protocol):
    """Where batches come from."""

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        """Returns a batch that depends on `rng` only."""
        ...


@dataclass(frozen=True, slots=True)
class ARDraws:
    """Random numbers of one step.

    indices: of the timestep table, int64 `[B, F]`, the same within a block. noise: like the clean latents.
    context_indices, context_noise: the same for the clean latents that later blocks attend to; None without such noise.
    """

    indices: Tensor
    noise: Tensor
    context_indices: Tensor | None = None
    context_noise: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ARInputs:
    """What the model gets in one step, and its target.

    noisy, target: `[B, C, F, h, w]`. levels: timesteps, sigmas and loss weights, `[B, F]`. context: the clean latents
    that later blocks attend to, like `noisy`. context_t: their timesteps, `[B, F]`. mask: frames that count, `[B, F]`;
    None is all of them. noise, latents: with injected errors. clean_step, injections: see `Injected`.
    """

    noisy: Tensor
    levels: NoiseLevels
    target: Tensor
    context: Tensor
    context_t: Tensor
    mask: Tensor | None
    noise: Tensor
    latents: Tensor
    clean_step: bool = False
    injections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ARStep:
    """Result of one step: `flow` and predicted clean latents `[B, C, F, h, w]`, `frame_loss` `[B, F]` and `loss`."""

    inputs: ARInputs
    flow: Tensor
    predicted: Tensor
    frame_loss: Tensor
    loss: Tensor


def random_draws(batch: ARBatch, settings: ARSettings, table: TimestepTable, generator: torch.Generator) -> ARDraws:
    """Draws noise and a noise level for each block.

    generator: on the CPU, so that every device trains on the same numbers. Raises ValueError if the films are not whole
    blocks.
    """
    films, frames, entries = len(batch.clean), batch.clean.shape[2], len(table.sigmas)

    def noise_and_indices(first: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(batch.clean.shape, generator=generator).to(batch.clean)
        indices = block_indices(films, frames, settings.block_frames, entries=entries - first, generator=generator)
        return noise, (first + indices).to(batch.clean.device)

    noise, indices = noise_and_indices(0)
    # The table descends, so the entries up to `context_noise` are its last ones.
    first = int((table.timesteps > settings.context_noise).sum())
    if first == entries:
        return ARDraws(indices, noise)
    # Noise of its own: the noise of the noisy latents would show the model a part of its target.
    context_noise, context_indices = noise_and_indices(first)
    return ARDraws(indices, noise, context_indices, context_noise)


def ar_inputs(
    batch: ARBatch,
    draws: ARDraws,
    settings: ARSettings,
    table: TimestepTable,
    buffers: ErrorBuffers | None = None,
    rng: Random | None = None,
) -> ARInputs:
    """Prepares the inputs of one step: noisy = (1 − sigma) · latents + sigma · noise, target = noise − clean.

    buffers: where injected errors come from; without them, or without `rng`, there are none. An injected error of the
    latents is not in the target, so that the model learns to remove it. The frame of a start image is clean at t = 0
    everywhere, has target 0 and does not count.
    """
    clean, frames = batch.clean, batch.clean.shape[2]
    levels = table.levels(draws.indices, bf16=settings.bf16_timesteps)
    context, context_t = clean, torch.zeros_like(levels.timesteps)
    if draws.context_indices is not None and draws.context_noise is not None:
        context_levels = table.levels(draws.context_indices, bf16=settings.bf16_timesteps)
        context, context_t = _noised(clean, draws.context_noise, context_levels), context_levels.timesteps
    noise, latents, clean_step, injections = draws.noise, clean, False, ()
    if buffers is not None and rng is not None:
        injected = buffers.inject(clean, noise, context, draws.indices[:, :: settings.block_frames], rng)
        noise, latents, context = injected.noise, injected.latents, injected.context
        clean_step, injections = injected.clean_step, injected.injections
    noisy, target, mask = _noised(latents, noise, levels), noise - clean, batch.mask
    if batch.image:
        given = torch.arange(frames, device=clean.device) == 0
        levels, context_t = table.at(levels.timesteps.masked_fill(given, 0)), context_t.masked_fill(given, 0)
        counted = (~given).float().expand(len(clean), frames)
        mask = counted if mask is None else mask * counted
        given = given[:, None, None]
        noisy, context, target = clean.where(given, noisy), clean.where(given, context), target.masked_fill(given, 0)
    return ARInputs(noisy, levels, target, context, context_t, mask, noise, latents, clean_step, injections)


def ar_step(model: CausalWan, batch: ARBatch, inputs: ARInputs, settings: ARSettings) -> ARStep:
    """Runs the model on prepared inputs and computes the loss: the weighted mean over the frames that count.

    Inputs are converted to the dtype of the model; the loss is float32.
    """
    dtype = model.dtype
    flow = teacher_forced_flow(
        model,
        inputs.context.to(dtype),
        inputs.noisy.to(dtype).unsqueeze(1),
        inputs.levels.timesteps.unsqueeze(1),
        batch.text.to(dtype),
        batch.prompts,
        batch.positions,
        settings.block_frames,
        history=settings.history(batch.cuts),
        clean_t=inputs.context_t,
        checkpointing=settings.checkpointing,
    ).squeeze(1)
    predicted = clean_from_flow(inputs.noisy, flow.detach(), _per_frame(inputs.levels.sigmas))
    losses = frame_losses(flow, inputs.target, inputs.levels.weights)
    return ARStep(inputs, flow, predicted, losses, mean_over_frames(losses, inputs.mask))


def step_errors(
    batch: ARBatch, draws: ARDraws, step: ARStep, settings: ARSettings, table: TimestepTable
) -> list[BlockErrors]:
    """The errors of a step that error recycling stores, film after film and block after block."""
    indices = draws.indices[:, :: settings.block_frames]
    sigmas = table.sigmas.to(indices.device)[indices]
    return block_errors(batch.clean, step.predicted, step.flow, step.inputs.target, indices, sigmas)


class ARStage:
    """Stage of the trainer for autoregressive training. A loss depends on (seed, step, part) and on the stored errors.

    model: its parameters that require gradients are trained. train, validation: where batches come from; every
    validation uses the same `validation_batches` batches and noise, without errors. module: what is trained, if that is
    more than the model, such as the model and its text encoder.

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
    ) -> None:
        self.model, self.train, self.settings, self.seed = model, train, settings, seed
        self.validation, self.validation_batches = validation, validation_batches
        self.table = TimestepTable.shifted(settings.shift)
        self.trained = (Trained("model", model if module is None else module, optimiser),)
        recycling = settings.error_recycling
        self.buffers = None if recycling is None else ErrorBuffers(recycling)
        self._new_errors: dict[tuple[int, int], list[BlockErrors]] = {}

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """Returns the loss of one batch. See `Stage.loss`."""
        del name
        self._store_errors(before=step)
        numpy_rng, python_rng, generator = self._random(_STEP, step, part)
        batch = self.train.batch(numpy_rng)
        draws = random_draws(batch, self.settings, self.table, generator)
        inputs = ar_inputs(batch, draws, self.settings, self.table, self.buffers, python_rng)
        result = ar_step(self.model, batch, inputs, self.settings)
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
                losses.append(float(ar_step(self.model, batch, inputs, self.settings).loss))
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


def _noised(clean: Tensor, noise: Tensor, levels: NoiseLevels) -> Tensor:
    return add_noise(clean, noise, _per_frame(levels.sigmas))


def _per_frame(x: Tensor) -> Tensor:
    """`[B, F]` → `[B, 1, F, 1, 1]`."""
    return x[:, None, :, None, None]


def _on_cpu(error: BlockErrors) -> BlockErrors:
    # Copies, because a slice would keep the errors of the whole batch in memory.
    return replace(error, latent=error.latent.to("cpu", copy=True), noise=error.noise.to("cpu", copy=True))


def _step_part_number(name: str) -> tuple[int, int, int]:
    step, part, number = name.split(".")
    return int(step), int(part), int(number)
