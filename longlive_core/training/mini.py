"""Training of the embedded model: VAE, latents of films, transformer and text encoder (`longlive train mini`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..mini import Mini
from .captions import vocabulary
from .dit import train_dit
from .films import encode_films
from .vae import polish_decoder, train_vae

FILMS = 600


def train_mini(folder: Path, seed: int, log: Callable[[str], None]) -> Mini:
    """Train all parts and write the three files that `load_mini` reads to `folder`.

    Each step depends on `seed` and its number only, and `folder/checkpoints` is updated at least every 100 steps, so
    that a second call with the same folder resumes an interrupted run.
    """
    checkpoints = folder / "checkpoints"
    vae = train_vae(checkpoints, seed, log).requires_grad_(False)
    films = encode_films(vae, checkpoints / "films.pt", seed, FILMS, log)
    mini = Mini.random(seed, vocabulary(), vae=films.vae)
    mini.vae.load_state_dict(vae.state_dict())
    train_dit(mini, films, checkpoints, seed, log)
    polish_decoder(mini.vae, checkpoints, seed, log)
    mini.save(folder)
    log(
        f"wrote {folder}: {sum(p.numel() for m in (mini.model, mini.text, mini.vae) for p in m.parameters()):,} weights"
    )
    return mini
