"""Training of LongLive Mini's VAE: images first, then short clips, then clips of whole frames, then the decoder alone.

The curriculum makes training on two CPU cores possible. An image autoencoder is inflated to a video autoencoder by
setting the weights of past frames to zero, so that clips start from the quality that images have reached.

    FOLDER/images/ clips/ films/ polish/    checkpoints, log and plot of each phase
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..mini import MINI_VAE
from ..vae import VAEConfig, WanVAE
from ..vae.decoder import Upsample
from ..vae.encoder import Downsample
from ..vae.layers import CausalConv3d
from .settings import VAERun
from .stage import Stage
from .trainer_settings import TrainerSettings
from .vae_measures import film_statistics
from .vae_stage import VAEPhase, VAEStage

POLISH = "polish"

# Trains a stage in a folder; returns whether its last step was reached.
Train = Callable[[Stage, TrainerSettings, Path], bool]


def train_vae(
    run: VAERun, folder: Path, train: Train, device: str | torch.device = "cpu", config: VAEConfig = MINI_VAE
) -> WanVAE | None:
    """Trains a VAE from random weights, without gradients at the end; returns None if it was stopped.

    Its configuration holds the statistics of its latents. It is on the CPU. A second call resumes a run.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        vae = WanVAE(config)
    vae.to(device)
    previous: VAEPhase | None = None
    for name, phase in run.phases:
        if phase.frames > 1 and previous is not None and previous.frames == 1:
            inflate(vae)
        if not train(VAEStage(vae, name, phase, run.seed), run.trainer(phase), folder / name):
            return None
        previous = phase
    vae.requires_grad_(False).cpu()
    vae.config = film_statistics(vae, run.seed, run.statistics)
    return vae


def finetune_decoder(vae: WanVAE, run: VAERun, folder: Path, train: Train, device: str | torch.device = "cpu") -> bool:
    """Trains the decoder alone, in place, on noisy latents; returns False if it was stopped. The VAE ends on the CPU.

    The VAE's configuration must hold the statistics of its latents.
    """
    stage = VAEStage(vae.to(device), POLISH, run.polish, run.seed, decoder=True)
    complete = train(stage, run.trainer(run.polish), folder / POLISH)
    vae.requires_grad_(False).cpu()
    return complete


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
            identity = torch.eye(weight.shape[1], device=weight.device)
            if isinstance(module, Upsample):
                weight[:, :, 2, 0, 0] = identity.repeat(2, 1)
            else:
                weight[:, :, 1:, 0, 0] = 0.5 * identity[..., None]
