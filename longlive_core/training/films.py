"""The data set of LongLive Mini's transformer: synthetic films, encoded once, with their ground truth.

A film is a function of (seed, index), so only its latents are stored, in shards of `SHARD_FILMS` films. Several
processes may encode one folder, each its own shards. A shard is written aside and renamed, so that an interrupted
process loses one shard at most.

For the first block of each shot, the same moment is also encoded with each of the other three shapes (see
`counterfactual.py`). Only its first `OTHER_FRAMES` latent frames are, because they decide the shape of the block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..types import BLOCK_FRAMES, SPACE_FACTOR, TIME_FACTOR, video_frames
from ..vae import WanVAE
from . import world

# Lengths of the shots of a film in blocks. A period of motion is three blocks, so longer shots show all its phases.
CUT_PATTERNS = (
    (2, 2), (1, 3), (3, 1), (2, 3), (3, 2), (1, 2, 2), (2, 1, 2), (4, 1), (6,), (3, 3), (2, 4), (4, 2), (1, 5),
    (5, 1), (2, 2, 2), (1, 2, 3), (3, 1, 2), (2, 3, 1), (1, 1, 4), (1, 4, 1), (3, 4), (4, 3), (1, 6), (2, 1, 1, 3),
    (2, 2, 3), (1, 1, 3, 2), (2, 6), (3, 2, 3), (1, 2, 2, 1, 2), (2, 1, 3, 2),
)  # fmt: skip
RETURNS = 0.3  # share of films of three shots or more whose third shot returns to the place of the first
SHARD_FILMS = 20
OTHER_FRAMES = 3
# Latent frames before a cut from which the other shapes are encoded: the encoder's memory of earlier ones changes
# the latents by less than a thousandth of their variance.
WARM_UP = 2
FORMAT = "longlive-films-1"


@dataclass(frozen=True)
class EncodedFilm:
    """A film with F latent frames.

    shots: index of the shot of each block. latents: `[C, F, h, w]`, normalised. hero: share of each latent cell that
    the hero covers, `[F, h, w]`. others: the first frames of each shot with each of the other shapes, in the order of
    SHAPES, `[shots, 3, C, OTHER_FRAMES, h, w]`. All tensors are float16.
    """

    film: world.WorldFilm
    shots: tuple[int, ...]
    latents: Tensor
    hero: Tensor
    others: Tensor


def training_film(seed: int, index: int) -> tuple[world.WorldFilm, tuple[int, ...]]:
    """Film `index` of the data set of a seed, and the index of the shot of each of its blocks."""
    rng = np.random.default_rng((seed, 1, index))
    shot_blocks = CUT_PATTERNS[rng.integers(len(CUT_PATTERNS))]
    film = world.sample_film(rng, shot_frames(shot_blocks))
    shots = list(film.shots)
    if len(shots) > 2 and rng.random() < RETURNS:
        first = shots[0]
        shots[2] = replace(
            shots[2], background=first.background, pattern=first.pattern, camera=first.camera, place=first.place
        )
    hero = replace(film.hero, shape=world.SHAPES[index % len(world.SHAPES)])
    return world.WorldFilm(hero, tuple(shots)), shots_of_blocks(shot_blocks)


def shot_frames(shot_blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Video frames of each shot of a film, given its blocks."""
    ends = [video_frames(BLOCK_FRAMES * blocks) for blocks in np.cumsum(shot_blocks)]
    return tuple(int(frames) for frames in np.diff([0, *ends]))


def shots_of_blocks(shot_blocks: tuple[int, ...]) -> tuple[int, ...]:
    """The shot of each block of a film, given the blocks of each shot."""
    return tuple(shot for shot, blocks in enumerate(shot_blocks) for _ in range(blocks))


class FilmSet(NamedTuple):
    """A data set: the name of its shards, and the film of a seed and index with the shot of each block."""

    name: str
    make: Callable[[int, int], tuple[world.WorldFilm, tuple[int, ...]]]


FILMS = FilmSet("films", training_film)


def heads(shots: tuple[int, ...]) -> tuple[int, ...]:
    """The first block of each shot, given the index of the shot of each block."""
    return tuple(block for block, shot in enumerate(shots) if block == 0 or shot != shots[block - 1])


@torch.inference_mode()
def encode_film(vae: WanVAE, film: world.WorldFilm, shots: tuple[int, ...]) -> EncodedFilm:
    """Encodes a film with a VAE whose configuration holds the statistics of its latents."""
    mask = F.avg_pool2d(torch.from_numpy(world.render_mask(film))[:, None], SPACE_FACTOR)[:, 0]
    hero = torch.cat([mask[:1], mask[1:].unflatten(0, (-1, TIME_FACTOR)).mean(1)])
    latents = vae.normalise(vae.encode(film_video([film])))[0]
    others = torch.stack([_other_shapes(vae, film, shots[block], BLOCK_FRAMES * block) for block in heads(shots)])
    return EncodedFilm(film, shots, latents.half(), hero.half(), others.half())


def encode_films(
    vae: WanVAE,
    folder: Path,
    seed: int,
    count: int,
    log: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    process: int = 0,
    processes: int = 1,
    of: FilmSet = FILMS,
) -> bool:
    """Writes those of the shards with the first `count` films that are missing in `folder`.

    Returns False if `should_stop`, which is asked before each film, returned true. Of several processes, process p
    writes every shard k with k % processes = p. Raises ValueError if a shard holds films of another seed, VAE or
    version of the synthetic world.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = encoder_digest(vae)
    for shard in range(process, _shard_count(count), processes):
        path, contents = _shard_path(folder, of, shard), _contents(digest, seed, of, shard)
        if path.exists():
            _check_contents(path, contents)
            continue
        tensors: dict[str, Tensor] = {}
        for index in _shard_films(shard):
            if should_stop is not None and should_stop():
                return False
            encoded = encode_film(vae, *of.make(seed, index))
            for name in ("latents", "hero", "others"):
                tensors[f"{index}.{name}"] = getattr(encoded, name).contiguous()
        partial = path.with_suffix(f".partial{process}")
        save_file(tensors, partial, {"format": FORMAT, "contents": contents})
        os.replace(partial, path)
        if log is not None:
            log(f"{of.name} encoded: shard {shard + 1} of {_shard_count(count)}")
    return True


def load_films(vae: WanVAE, folder: Path, seed: int, count: int, of: FilmSet = FILMS) -> tuple[EncodedFilm, ...]:
    """The first `count` films of a folder that `encode_films` filled; their tensors are mapped from the files.

    Raises FileNotFoundError for a missing shard, and ValueError as `encode_films` does.
    """
    digest, films = encoder_digest(vae), list[EncodedFilm]()
    for shard in range(_shard_count(count)):
        path = _shard_path(folder, of, shard)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: encode {count} films first, or train on {len(films)}")
        _check_contents(path, _contents(digest, seed, of, shard))
        tensors = load_file(path)
        for index in _shard_films(shard):
            parts = (tensors[f"{index}.{name}"] for name in ("latents", "hero", "others"))
            films.append(EncodedFilm(*of.make(seed, index), *parts))
    return tuple(films[:count])


def film_video(films: list[world.WorldFilm], start: int = 0, stop: int | None = None) -> Tensor:
    """Frames in [start, stop) of films of equal length, `[B, 3, T, H, W]` in [−1, 1]."""
    frames = np.stack([world.render(film, start, stop) for film in films])
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def encoder_digest(vae: WanVAE) -> str:
    """Digest of everything that decides the VAE's normalised latents; training of the decoder does not change it."""
    digest = hashlib.sha256(repr((vae.config.mean, vae.config.std)).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "conv1.")):
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _other_shapes(vae: WanVAE, film: world.WorldFilm, shot: int, latent: int) -> Tensor:
    """Latents `[3, C, OTHER_FRAMES, h, w]` from frame `latent` of a shot on, with each of the other shapes."""
    hero = film.shown(film.shots[shot])
    alone = tuple(replace(other, hero=None) for other in film.shots)
    others = [world.WorldFilm(replace(hero, shape=shape), alone) for shape in world.SHAPES if shape != hero.shape]
    before = min(latent, WARM_UP)
    # The first frame of a clip is one latent frame, as the first frame of a film is.
    start = video_frames(latent - before + 1) - 1
    video = film_video(others, start, video_frames(latent + OTHER_FRAMES))
    return vae.normalise(vae.encode(video))[:, :, before:]


def _shard_count(films: int) -> int:
    return -(-films // SHARD_FILMS)


def _shard_films(shard: int) -> range:
    return range(shard * SHARD_FILMS, (shard + 1) * SHARD_FILMS)


def _shard_path(folder: Path, of: FilmSet, shard: int) -> Path:
    return folder / f"{of.name}-{shard:05d}.safetensors"


def _contents(digest: str, seed: int, of: FilmSet, shard: int) -> str:
    """Digest of what a shard must hold: of the encoder and of the descriptions of the films."""
    films = [of.make(seed, index) for index in _shard_films(shard)]
    return hashlib.sha256(f"{digest} {films}".encode()).hexdigest()


def _check_contents(path: Path, contents: str) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT or metadata.get("contents") != contents:
        raise ValueError(f"{path} holds films of another seed, VAE or version of the world; use another folder")
