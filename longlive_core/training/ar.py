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
from ..parallel import ALONE, Ranks, all_gather
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


def ar_step(model: CausalWan, batch: ARBatch, inputs: ARInputs, settings: ARSettings, ranks: Ranks = ALONE) -> ARStep:
    """Runs the model on prepared inputs and computes the loss: the weighted mean over the frames that count.

    Inputs are converted to the dtype of the model; the loss is float32. ranks: processes that share the film; all have
    the same batch and inputs, and each runs its own share of the blocks. `loss` is that of the own share: its mean over
    the ranks is the loss of the film. The other results are those of the whole film.
    """
    dtype, frames = model.dtype, batch.clean.shape[2]
    own, blocks = ranks.own(frames), ranks.own(batch.prompts.shape[1])
    flow = teacher_forced_flow(
        model,
        inputs.context[:, :, own].to(dtype),
        inputs.noisy[:, :, own].to(dtype).unsqueeze(1),
        inputs.levels.timesteps[:, own].unsqueeze(1),
        batch.text.to(dtype),
        batch.prompts[:, blocks],
        batch.positions[..., own],
        settings.block_frames,
        history=settings.history(batch.cuts),
        clean_t=inputs.context_t[:, own],
        kv_format=settings.kv_format,
        checkpointing=settings.checkpointing,
        ranks=ranks,
    ).squeeze(1)
    losses = frame_losses(flow, inputs.target[:, :, own], inputs.levels.weights[:, own])
    mask = None if inputs.mask is None else inputs.mask[:, own]
    loss = mean_over_frames(losses, mask, ranks)
    flow = all_gather(flow.detach(), ranks, dim=2, count=frames)
    predicted = clean_from_flow(inputs.noisy, flow, per_frame(inputs.levels.sigmas))
    return ARStep(inputs, flow, predicted, all_gather(losses.detach(), ranks, dim=1, count=frames), loss)


def step_errors(
    batch: ARBatch, draws: ARDraws, step: ARStep, settings: ARSettings, table: TimestepTable
) -> list[BlockErrors]:
    """The errors of a step that error recycling stores, film after film and block after block."""
    indices = draws.indices[:, :: settings.block_frames]
    sigmas = table.sigmas.to(indices.device)[indices]
    return block_errors(batch.clean, step.predicted, step.flow, step.inputs.target, indices, sigmas)
