"""A toy run of the VAE's curriculum: a tiny VAE, four short phases. Run as a script, to be killed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from longlive.longlive_core.training.settings import VAERun
from longlive.longlive_core.training.stage import Stage
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from longlive.longlive_core.training.vae import finetune_decoder, train_vae
from longlive.longlive_core.training.vae_stage import VAEPhase
from longlive.longlive_core.vae import VAEConfig, WanVAE

TINY_VAE = VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)
PHASES = ("images", "clips", "films", "polish")


def toy_run(steps: int = 2, accumulation: int = 1) -> VAERun:
    """Four phases of a few steps each, with a checkpoint after each step."""
    run = VAERun(seed=3, accumulation=accumulation, save_every=1, statistics=1)

    def short(phase: VAEPhase) -> VAEPhase:
        return replace(phase, steps=steps, crop=32, batch=1)

    return replace(
        run, images=short(run.images), clips=short(run.clips), films=short(run.films), polish=short(run.polish)
    )


def train_toy(run: VAERun, folder: Path, should_stop: Callable[[], bool] | None = None) -> WanVAE | None:
    """Runs all phases in a folder; returns None if they were stopped."""

    def train(stage: Stage, settings: TrainerSettings, folder: Path) -> bool:
        return Trainer(stage, settings, folder, should_stop=should_stop).run()

    vae = train_vae(run, folder, train, config=TINY_VAE)
    return vae if vae is not None and finetune_decoder(vae, run, folder, train) else None


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained = train_toy(toy_run(int(sys.argv[2])), Path(sys.argv[1]))
    assert trained is not None
    torch.save(trained.state_dict(), Path(sys.argv[1]) / "vae.pt")
