"""Training of LongLive Mini's VAE on synthetic films: images first, then short clips, then clips of whole frames.

The curriculum makes training on two CPU cores possible. An image autoencoder is inflated to a video autoencoder by
setting the weights of past frames to zero, so that clips start from the quality that images have reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..mini.config import MINI_VAE
from ..types import FPS
from ..vae import VAEConfig, WanVAE
from ..vae.decoder import Upsample
from ..vae.encoder import Downsample
from ..vae.layers import CausalConv3d
from . import world
from .checkpoint import TrainingCheckpoint
from .optim import MuonAdam


@dataclass(frozen=True)
class Phase:
    """One phase of the curriculum: `steps` updates on `batch` clips of `frames` video frames, `crop` × `crop` pixels.

    The learning rates fall from `muon_lr` and `adam_lr` towards `final_scale` times these along a cosine over `horizon`
    steps.
    """

    name: str
    frames: int
    crop: int
    batch: int
    steps: int
    horizon: int
    muon_lr: float
    adam_lr: float
    final_scale: float


# The third phase ends in the middle of its cosine. Any fixed encoder will do, and the decoder is trained further in
# `DECODER_PHASE`, once the encoder is frozen.
PHASES = (
    Phase("images", 1, crop=64, batch=16, steps=1200, horizon=1200, muon_lr=0.02, adam_lr=3e-3, final_scale=0.2),
    Phase("clips", 5, crop=64, batch=8, steps=1100, horizon=1100, muon_lr=0.005, adam_lr=1e-3, final_scale=0.4),
    Phase("films", 9, crop=128, batch=2, steps=400, horizon=900, muon_lr=0.0025, adam_lr=5e-4, final_scale=0.02),
)
DECODER_PHASE = Phase(
    "polish", 9, crop=128, batch=2, steps=220, horizon=220, muon_lr=0.002, adam_lr=4e-4, final_scale=0.02
)
HERO_WEIGHT = 4.0  # weight of the hero's pixels in the loss
LATENT_NOISE = 0.2  # highest noise level in standard deviations of the latents
KL_WEIGHT = 1e-4


def clip_batch(phase: Phase, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Batch of one step: video `[B, 3, T, S, S]` in [-1, 1] and hero mask `[B, 1, T, S, S]` in [0, 1].

    It depends on `seed` and `step` only. One clip in four contains a cut.
    """
    videos, masks = list[Tensor](), list[Tensor]()
    for row in range(phase.batch):
        rng = np.random.default_rng((seed, phase.frames, step, row))
        span = 6 * FPS
        # The order of these calls decides every batch, because they share one random stream.
        if rng.random() < 0.25 and phase.frames > 1:
            cut = int(rng.integers(1, phase.frames))
            start = int(rng.integers(span - phase.frames)) + phase.frames
            film = world.sample_film(rng, (start + cut, span))
        else:
            film = world.sample_film(rng, (span,))
            start = int(rng.integers(span - phase.frames))
        x, y = rng.integers(0, world.SIZE - phase.crop + 1, 2) // 16 * 16
        window = (slice(None), slice(y, y + phase.crop), slice(x, x + phase.crop))
        video = torch.from_numpy(world.render(film, start, start + phase.frames)[window].copy())
        mask = torch.from_numpy(world.render_mask(film, start, start + phase.frames)[window].copy())
        videos.append(video.permute(3, 0, 1, 2).float() / 127.5 - 1)
        masks.append(mask[None])
    return torch.stack(videos), torch.stack(masks)


def weighted_error(video: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of video `[B, 3, T, S, S]`, in which pixels of the hero count HERO_WEIGHT times.

    mask: `[B, 1, T, S, S]`.
    """
    weight = 1 + (HERO_WEIGHT - 1) * mask
    return (weight * (video - target).abs()).mean() / weight.mean()


def reconstruction_loss(vae: WanVAE, video: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """`weighted_error` of a reconstruction from a sampled latent, plus the KL divergence of the posterior.

    video: `[B, 3, T, S, S]`. mask: `[B, 1, T, S, S]`.
    """
    mean, log_variance = vae.moments(video)
    sample = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=noise).to(mean)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return weighted_error(vae.reconstruct(sample), video, mask) + KL_WEIGHT * kl


def decoder_loss(vae: WanVAE, video: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """`weighted_error` of a reconstruction from latents with noise of up to LATENT_NOISE standard deviations.

    video: `[B, 3, T, S, S]`. mask: `[B, 1, T, S, S]`.
    """
    with torch.no_grad():
        latents = vae.normalise(vae.moments(video)[0])
        level = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, 1, generator=noise)
        latents = vae.denormalise(latents + level * torch.randn(latents.shape, generator=noise))
    return weighted_error(vae.reconstruct(latents), video, mask)


@torch.no_grad()
def inflate(vae: WanVAE) -> None:
    """Turns an image autoencoder into a video autoencoder, in place, that treats each frame as an image at first.

    Sets the weights of past frames to zero; temporal convolutions repeat (decoder) or average (encoder) their input.
    """
    for module in vae.modules():
        if isinstance(module, CausalConv3d) and module.kernel == (3, 3, 3):
            module.weight[:, :, :2] = 0
        elif isinstance(module, (Upsample, Downsample)) and module.time_conv is not None:
            weight = module.time_conv.weight.zero_()
            identity = torch.eye(weight.shape[1])
            if isinstance(module, Upsample):
                weight[:, :, 2, 0, 0] = identity.repeat(2, 1)
            else:
                weight[:, :, 1:, 0, 0] = 0.5 * identity[..., None]


@torch.no_grad()
def held_out_psnr(vae: WanVAE, seed: int, films: int = 4, frames: int = 33) -> float:
    """Mean PSNR in dB of held-out films of two shots, encoded and decoded."""
    values: list[float] = []
    for index in range(films):
        film = world.sample_film(np.random.default_rng((seed, 777, index)), (frames // 2, frames))
        pixels = torch.from_numpy(world.render(film, 0, frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        error = (vae.decode(vae.encode(pixels)).clamp(-1, 1) - pixels) / 2
        values.append(-10 * torch.log10(error.square().mean()).item())
    return float(np.mean(values))


def train_vae(
    folder: Path, seed: int, log: Callable[[str], None], phases: tuple[Phase, ...] = PHASES, every: int = 100
) -> WanVAE:
    """Trains a VAE from random weights. Saves a checkpoint in `folder` every `every` steps and resumes from it."""
    torch.manual_seed(seed)
    vae = WanVAE(MINI_VAE)
    for previous, phase in zip((None, *phases), phases, strict=False):
        if phase.frames > 1 and previous is not None and previous.frames == 1:
            inflate(vae)
        optimiser = MuonAdam(vae.parameters(), muon_lr=phase.muon_lr, adam_lr=phase.adam_lr)
        _run(phase, vae, vae, optimiser, folder, seed, log, reconstruction_loss, every)
    return vae


def finetune_decoder(
    vae: WanVAE, folder: Path, seed: int, log: Callable[[str], None], phase: Phase = DECODER_PHASE
) -> None:
    """Trains the decoder alone, in place, on noisy latents, because a sampler's latents have errors.

    The VAE's configuration must hold the mean and standard deviation of its latents.
    """
    vae.decoder.requires_grad_(True)
    optimiser = MuonAdam(vae.decoder.parameters(), muon_lr=phase.muon_lr, adam_lr=phase.adam_lr)
    _run(phase, vae, vae.decoder, optimiser, folder, seed, log, decoder_loss)
    vae.decoder.requires_grad_(False)


def _run(
    phase: Phase,
    vae: WanVAE,
    trained: nn.Module,
    optimiser: MuonAdam,
    folder: Path,
    seed: int,
    log: Callable[[str], None],
    loss_of: Callable[[WanVAE, Tensor, Tensor, torch.Generator], Tensor],
    every: int = 100,
) -> None:
    """Runs one phase from its checkpoint on. A step depends on `seed` and `step` only."""
    checkpoint = TrainingCheckpoint(folder / f"vae_{phase.name}", every)
    for step in range(checkpoint.restore(trained, optimiser), phase.steps):
        noise = torch.Generator().manual_seed(seed * 1_000_003 + step)
        loss = loss_of(vae, *clip_batch(phase, seed, step), noise)
        loss.backward()
        optimiser.step(cosine_schedule(step, phase.horizon, phase.final_scale))
        checkpoint.save(step + 1, trained, optimiser, last=step + 1 == phase.steps)
        if (step + 1) % 50 == 0:
            log(f"vae {phase.name} {step + 1}/{phase.steps} loss {loss.item():.4f}")
    log(f"vae {phase.name} done: {held_out_psnr(vae, seed):.2f} dB on held-out films")


def cosine_schedule(step: int, steps: int, final: float, warmup: int = 50) -> float:
    """Factor of the learning rate at a step: linear warm-up, then a cosine from 1 to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


def latent_statistics(vae: WanVAE, latents: Tensor) -> VAEConfig:
    """The VAE's configuration with mean and standard deviation of each channel of latents `[N, C, F, H, W]`.

    Standard deviations are at least a tenth of their median.
    """
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    std = std.clamp(min=0.1 * std.median().item())
    return replace(vae.config, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
