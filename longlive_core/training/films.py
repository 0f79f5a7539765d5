"""The data set of the transformer: synthetic films, encoded once, as latents with their ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import BLOCK_FRAMES, SPACE_FACTOR, TIME_FACTOR, video_frames
from ..vae import VAEConfig, WanVAE
from . import world
from .vae import latent_statistics

FILM_BLOCKS = 6
# Lengths of the shots of a film, in blocks.
CUT_PATTERNS = (
    (6,), (3, 3), (2, 4), (4, 2), (1, 5), (5, 1), (2, 2, 2), (1, 2, 3), (3, 1, 2), (2, 3, 1), (1, 1, 4), (1, 4, 1)
)  # fmt: skip


@dataclass(frozen=True)
class FilmDataset:
    """N films of 6 blocks, or 48 latent frames.

    latents: `[N, C, 48, h, w]`, normalised. hero: share of each latent cell that the hero covers, `[N, 48, h, w]`.
    films: descriptions of the films. block_shots: index of the shot of each block, `[N, 6]`. vae_config: with the mean
    and standard deviation by which the latents are normalised.
    """

    latents: Tensor
    hero: Tensor
    films: tuple[world.WorldFilm, ...]
    block_shots: Tensor
    vae_config: VAEConfig

    def __len__(self) -> int:
        return len(self.films)


def training_film(seed: int, index: int) -> tuple[world.WorldFilm, tuple[int, ...]]:
    """Film `index` of the data set of a seed, and the index of the shot of each of its blocks."""
    rng = np.random.default_rng((seed, 1, index))
    shot_blocks = CUT_PATTERNS[rng.integers(len(CUT_PATTERNS))]
    ends = [video_frames(BLOCK_FRAMES * blocks) for blocks in np.cumsum(shot_blocks)]
    film = world.sample_film(rng, tuple(int(n) for n in np.diff([0, *ends])))
    return film, tuple(shot for shot, blocks in enumerate(shot_blocks) for _ in range(blocks))


@torch.inference_mode()
def encode_film(vae: WanVAE, film: world.WorldFilm) -> tuple[Tensor, Tensor]:
    """Encodes a film: latents `[C, F, h, w]`, not normalised, and the share that the hero covers, `[F, h, w]`."""
    video = torch.from_numpy(world.render(film)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    mask = F.avg_pool2d(torch.from_numpy(world.render_mask(film))[:, None], SPACE_FACTOR)[:, 0]
    coverage = torch.cat([mask[:1], mask[1:].unflatten(0, (-1, TIME_FACTOR)).mean(1)])
    return vae.moments(video)[0][0], coverage


def build_dataset(vae: WanVAE, path: Path, seed: int, count: int, log: Callable[[str], None]) -> FilmDataset:
    """Encodes `count` films and saves them to `path` after every 50th; resumes after the films that `path` holds."""
    latents, hero = list[Tensor](), list[Tensor]()
    if path.exists():
        saved = torch.load(path, weights_only=True)
        latents, hero = list(saved["latents"]), list(saved["hero"])
    for index in range(len(latents), count):
        z, coverage = encode_film(vae, training_film(seed, index)[0])
        latents.append(z.half())
        hero.append(coverage.half())
        if (index + 1) % 50 == 0 or index + 1 == count:
            torch.save({"latents": torch.stack(latents), "hero": torch.stack(hero)}, path)
            log(f"films encoded {index + 1}/{count}")
    return _normalise(vae, torch.stack(latents[:count]), torch.stack(hero[:count]), seed)


def _normalise(vae: WanVAE, latents: Tensor, hero: Tensor, seed: int) -> FilmDataset:
    config = latent_statistics(vae, latents[:100].float())
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.mean, config.std))
    for part in latents.split(64):  # in place: the data set is large, and its raw latents are not needed again
        part.copy_((part.float() - mean) / std)
    films, shots = zip(*(training_film(seed, index) for index in range(len(latents))), strict=True)
    return FilmDataset(latents, hero, films, torch.tensor(shots), config)
