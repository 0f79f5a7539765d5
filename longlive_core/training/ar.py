"""Training of the autoregressive model by teacher forcing: one step as pure functions.

    draws   = random_draws(batch, settings, table, generator)    noise levels and noise
    inputs  = ar_inputs(batch, draws, settings, table, …)        what the model gets, and its target
    step    = ar_step(model, batch, inputs, settings)            flow, predicted clean latents and loss
    errors  = step_errors(batch, draws, step, settings, table)   what error recycling stores

Shapes: B films, C channels, F latent frames of h × w cells, n = F / blocks latent frames in a block.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..model import CausalWan
from .ar_inputs import ARBatch, ARDraws, ARInputs, per_frame
from .ar_settings import ARSettings
from .error_recycling import BlockErrors, block_errors
from .losses import frame_losses, mean_over_frames
from .schedule import TimestepTable, clean_from_flow
from .teacher_forcing import teacher_forced_flow


@dataclass(frozen=True, slots=True)
class ARStep:
    """Result of one step: `flow` and predicted clean latents `[B, C, F, h, w]`, `frame_loss` `[B, F]` and `loss`."""

    inputs: ARInputs
    flow: Tensor
    predicted: Tensor
    frame_loss: Tensor
    loss: Tensor


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
        kv_format=settings.kv_format,
        checkpointing=settings.checkpointing,
    ).squeeze(1)
    predicted = clean_from_flow(inputs.noisy, flow.detach(), per_frame(inputs.levels.sigmas))
    losses = frame_losses(flow, inputs.target, inputs.levels.weights)
    return ARStep(inputs, flow, predicted, losses, mean_over_frames(losses, inputs.mask))


def step_errors(
    batch: ARBatch, draws: ARDraws, step: ARStep, settings: ARSettings, table: TimestepTable
) -> list[BlockErrors]:
    """The errors of a step that error recycling stores, film after film and block after block."""
    indices = draws.indices[:, :: settings.block_frames]
    sigmas = table.sigmas.to(indices.device)[indices]
    return block_errors(batch.clean, step.predicted, step.flow, step.inputs.target, indices, sigmas)
