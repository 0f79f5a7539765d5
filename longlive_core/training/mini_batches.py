"""Batches for LongLive Mini's transformer: named single blocks, and films whose blocks attend to what came before.

Both kinds are in the mix from the first step. Training on single blocks alone forgets memory, and training on films
alone forgets shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..memory import Window
from ..script import CUT_PREFIX
from ..types import BLOCK_FRAMES
from .captions import caption
from .films import EncodedFilm, heads

SHOT_OFFSET = 8.0  # added to RoPE positions at each cut, in latent frames
PERIOD_FRAMES = 24  # latent frames in one period of all motion: a film that skips a period looks the same
AT_START = 0.6  # share of single blocks that are the first of their film; the others follow a cut
NAMED_LATER = 0.15  # share of later shots whose caption describes the hero
JUMPS = 0.6  # share of films whose positions jump by periods
LONGEST_JUMP = 32  # periods: with two jumps, a global sink is as far away as in films of two minutes
# Blocks that a film may have in a batch, and their shares.
LENGTHS, LENGTH_SHARES = (3, 4, 5, 6, 7, 8), (0.2, 0.3, 0.2, 0.2, 0.05, 0.05)
# Sizes of the KV cache in blocks. Four is the engine's default.
SLOTS = (3, 4, 4, 4, 5, 6)
NO_SINK, NO_SHOT_SINK = 0.1, 0.15  # shares of films whose KV cache has no global sink, or no shot sink
DROPS, DROPPED = 0.3, 0.5  # share of films that lack blocks of the KV cache, and the share of blocks that they lack
RECALLS = 0.25  # share of blocks that also attend to a block of an earlier shot that the KV cache no longer holds


@dataclass(frozen=True)
class Batch:
    """Data of one training step: B films of F latent frames with cuts at the same blocks.

    clean: latents `[B, C, F, h, w]`. hero: share of each latent cell that the hero covers, `[B, F, h, w]`. captions:
    one per film and block. positions: RoPE positions `[B, F]`. history: indices of the blocks that each block attends
    to, apart from itself. heads: blocks that start a shot. others: the first frames of these blocks with the other
    shapes, `[B, heads, 3, C, OTHER_FRAMES, h, w]`.
    """

    clean: Tensor
    hero: Tensor
    captions: tuple[tuple[str, ...], ...]
    positions: Tensor
    history: tuple[tuple[int, ...], ...]
    heads: tuple[int, ...]
    others: Tensor


def single_batch(films: Sequence[EncodedFilm], size: int, rng: np.random.Generator) -> Batch:
    """Batch of `size` first blocks of shots without history, with captions that describe the hero."""
    clean, hero, texts, others = list[Tensor](), list[Tensor](), list[tuple[str]](), list[Tensor]()
    for row in rng.integers(len(films), size=size).tolist():
        film = films[row]
        shot = 0 if rng.random() < AT_START else int(rng.integers(film.shots[-1] + 1))
        start = BLOCK_FRAMES * heads(film.shots)[shot]
        frames = slice(start, start + BLOCK_FRAMES)
        clean.append(film.latents[:, frames].float())
        hero.append(film.hero[frames].float())
        others.append(film.others[shot : shot + 1].float())
        described = film.film.shots[shot]
        text = caption(film.film.shown(described), described, rng)
        texts.append((CUT_PREFIX + text if shot else text,))
    positions = torch.arange(BLOCK_FRAMES).float().expand(size, -1)
    return Batch(torch.stack(clean), torch.stack(hero), tuple(texts), positions, ((),), (0,), torch.stack(others))


def film_batch(films: Sequence[EncodedFilm], size: int, rng: np.random.Generator, multiple: int = 1) -> Batch:
    """Batch of films from their first block on, whose cuts are at the same blocks, so that they share one history.

    size: blocks in the batch, clean ones and noisy ones; longer films are fewer, so that all batches cost the same.
    multiple: the number of blocks of each film is one of it; the films have so many at least.
    """
    pattern = films[int(rng.integers(len(films)))].shots
    blocks = min(len(pattern), max(multiple, int(rng.choice(LENGTHS, p=LENGTH_SHARES))))
    blocks -= blocks % multiple
    shots = pattern[:blocks]
    alike = [film for film in films if film.shots[:blocks] == shots]
    chosen = [alike[row] for row in rng.integers(len(alike), size=max(1, size // (2 * blocks - 1))).tolist()]
    frames, first = BLOCK_FRAMES * blocks, heads(shots)
    return Batch(
        clean=torch.stack([film.latents[:, :frames].float() for film in chosen]),
        hero=torch.stack([film.hero[:frames].float() for film in chosen]),
        captions=tuple(_captions(film, shots, rng) for film in chosen),
        positions=torch.stack([random_positions(shots, rng) for _ in chosen]),
        history=random_history(shots, rng),
        heads=first,
        others=torch.stack([film.others[: len(first)].float() for film in chosen]),
    )


def random_history(shots: tuple[int, ...], rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Indices of the blocks that each block attends to: any that a KV cache can hold.

    shots: index of the shot of each block. The KV cache has a random size and random sinks. It may lack blocks, apart
    from the newest one of the same shot, without which the phase of motion is unknown. It may hold a block of an
    earlier shot that was evicted. A block after the first always attends to another, so that the hero can be known.
    """
    sinks, shot_sink = int(rng.random() >= NO_SINK), bool(rng.random() >= NO_SHOT_SINK)
    window = Window(int(rng.choice(SLOTS)), sinks=sinks, shot_sink=shot_sink)
    drops = rng.random() < DROPS
    history: list[tuple[int, ...]] = []
    for block, shot in enumerate(shots):
        window.begin(block)
        held = window.attended()[:-1]
        cut = block > 0 and shot != shots[block - 1]
        window.end(cut=cut)
        newest = max((other for other in held if shots[other] == shot), default=None)
        kept = {other for other in held if not drops or rng.random() >= DROPPED or other == newest}
        evicted = [other for other in range(block) if other not in held and shots[other] != shot]
        if evicted and rng.random() < RECALLS:
            kept.add(int(rng.choice(evicted)))
        if held and not kept:
            kept.add(int(rng.choice(held)))
        history.append(tuple(sorted(kept)))
    return tuple(history)


def _captions(film: EncodedFilm, shots: tuple[int, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """One caption per block. The first shot's describes the hero; those of later shots rarely do."""
    texts: list[str] = []
    for shot in range(shots[-1] + 1):
        named = shot == 0 or rng.random() < NAMED_LATER
        texts.append(caption(film.film.hero if named else None, film.film.shots[shot], rng))
    cuts = heads(shots)[1:]
    return tuple(CUT_PREFIX + texts[shot] if block in cuts else texts[shot] for block, shot in enumerate(shots))


def random_positions(shots: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """RoPE position of each latent frame `[F]`, with random jumps by whole periods, as in a longer film.

    Short jumps are as common as long ones: the logarithm of their length is uniform.
    """
    positions = torch.arange(BLOCK_FRAMES * len(shots), dtype=torch.float32)
    positions += SHOT_OFFSET * torch.tensor(shots).repeat_interleave(BLOCK_FRAMES)
    if rng.random() < JUMPS:
        for _ in range(int(rng.integers(1, 3))):
            block = int(rng.integers(1, len(shots)))
            positions[BLOCK_FRAMES * block :] += PERIOD_FRAMES * round((LONGEST_JUMP + 0.5) ** rng.random())
    return positions
