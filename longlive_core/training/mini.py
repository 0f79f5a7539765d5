"""Training of LongLive Mini from a seed: VAE, data set, transformer and text encoder. `longlive train mini` runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..mini import Mini
from .captions import vocabulary
from .dit import train_dit
from .films import build_dataset
from .vae import finetune_decoder, train_vae

FILM_COUNT = 600


def train_mini(folder: Path, seed: int, log: Callable[[str], None]) -> Mini:
    """Trains all parts of LongLive Mini and writes the three files that `load_mini` reads to `folder`.

    A step depends on `seed` and its number only. Checkpoints are saved in `folder/checkpoints` at least every 100
    steps, and a second call with the same folder resumes an interrupted run.
    """
    checkpoints = folder / "checkpoints"
    vae = train_vae(checkpoints, seed, log).requires_grad_(False)
    data = build_dataset(vae, checkpoints / "films.pt", seed, FILM_COUNT, log)
    mini = Mini.random(seed, vocabulary(), vae=data.vae_config)
    mini.vae.load_state_dict(vae.state_dict())
    train_dit(mini, data, checkpoints, seed, log)
    finetune_decoder(mini.vae, checkpoints, seed, log)
    mini.save(folder)
    count = sum(p.numel() for module in (mini.model, mini.text, mini.vae) for p in module.parameters())
    log(f"wrote {folder}: {count:,} weights")
    return mini
