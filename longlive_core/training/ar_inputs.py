"""What the model gets in one step of autoregressive training: a batch with random noise, and its target.

Shapes: B films, C channels, F latent frames of h × w cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from .ar_settings import ARSettings
from .error_recycling import ErrorBuffers
from .schedule import NoiseLevels, TimestepTable, add_noise, block_indices


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


def _noised(clean: Tensor, noise: Tensor, levels: NoiseLevels) -> Tensor:
    return add_noise(clean, noise, per_frame(levels.sigmas))


def per_frame(x: Tensor) -> Tensor:
    """`[B, F]` → `[B, 1, F, 1, 1]`."""
    return x[:, None, :, None, None]
