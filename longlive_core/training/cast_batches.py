"""Batches of films of several heroes, in which shots recall blocks as they do where films are made.

A recalled block enters memory once more, right before the shot that recalls it: a clean pass at these positions, which
sees nothing but the global sinks. So it is a segment of its own in a batch:

    blocks      0   1   2   1   3      block 3 starts a shot that recalls block 1, in a window of four blocks
    segments    0   1   2   3   4      segment 4 attends to 0 (the global sink), 2 (the shot sink) and 3
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..memory import Window, original_of
from ..script import CUT_PREFIX
from ..types import BLOCK_FRAMES
from .captions import caption
from .cast_films import described
from .films import EncodedFilm, heads
from .mini_batches import NAMED_LATER, NO_SHOT_SINK, NO_SINK, Batch, random_positions

# Sizes of the KV cache in blocks. In fewer than four, no recalled block fits beside the sinks.
SLOTS = (4, 4, 4, 4, 5, 6)


class Segment(NamedTuple):
    """A block of a film in a batch. history: the segments that it attends to. before: if it is a recalled block, that
    before which it enters, else None.
    """

    block: int
    history: tuple[int, ...]
    before: int | None = None


def segments(shots: Sequence[int], recalled: Mapping[int, int], window: Window) -> tuple[Segment, ...]:
    """The segments of a film in the order in which they are computed, with what `window` holds for each.

    shots: index of the shot of each block. recalled: the block that a shot recalls, by shot.
    """
    made, row = list[Segment](), dict[int, int]()  # row: the segment that is in memory for each block
    first = heads(tuple(shots))
    for block, shot in enumerate(shots):
        if block in first:
            window.recall([recalled[shot]] if shot in recalled else (), again=True)
            while window.entering:
                entering = window.entering[0]
                sinks = tuple(row[sink] for sink in window.held_sinks)
                made.append(Segment(original_of(entering), sinks, block))
                row[entering] = len(made) - 1
                window.entered()
        window.begin(block)
        made.append(Segment(block, tuple(row[other] for other in window.attended()[:-1])))
        row[block] = len(made) - 1
        window.end(cut=block in first[1:])
    return tuple(made)


def cast_batch(films: Sequence[EncodedFilm], size: int, rng: np.random.Generator) -> Batch:
    """Batch of whole films of several heroes whose cuts and recalls are at the same blocks.

    size: blocks in the batch, clean ones and noisy ones; longer films are fewer.
    """
    film = films[int(rng.integers(len(films)))]
    shots, recalls = film.shots, _recalls(film)
    first = heads(shots)
    # Any block of the recalled shot.
    recalled = {
        shot: first[source] + int(rng.integers(shots.count(source)))
        for shot, source in enumerate(recalls)
        if source is not None
    }
    sinks, shot_sink = int(rng.random() >= NO_SINK), bool(rng.random() >= NO_SHOT_SINK)
    made = segments(shots, recalled, Window(int(rng.choice(SLOTS)), sinks=sinks, shot_sink=shot_sink))
    alike = [other for other in films if other.shots == shots and _recalls(other) == recalls]
    count = max(1, size // (2 * len(made) - 1))
    chosen = [alike[row] for row in rng.integers(len(alike), size=count).tolist()]
    own = {segment.block: row for row, segment in enumerate(made) if segment.before is None}
    frames = [BLOCK_FRAMES * segment.block + frame for segment in made for frame in range(BLOCK_FRAMES)]
    return Batch(
        clean=torch.stack([other.latents[:, frames].float() for other in chosen]),
        hero=torch.stack([other.hero[frames].float() for other in chosen]),
        captions=tuple(_captions(other, made, rng) for other in chosen),
        positions=torch.stack([segment_positions(_block_positions(shots, rng), made) for _ in chosen]),
        history=tuple(segment.history for segment in made),
        heads=tuple(own[block] for block in first),
        others=torch.stack([other.others.float() for other in chosen]),
    )


def _recalls(film: EncodedFilm) -> tuple[int | None, ...]:
    return tuple(shot.recalls for shot in film.film.shots)


def _block_positions(shots: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    return random_positions(shots, rng).unflatten(0, (-1, BLOCK_FRAMES))


def _captions(film: EncodedFilm, made: Sequence[Segment], rng: np.random.Generator) -> tuple[str, ...]:
    """One caption per segment; a recalled block has that with which it was made. Few describe more than they must."""
    texts: list[str] = []
    for number, shot in enumerate(film.film.shots):
        hero, walled = described(film.film, number)
        if rng.random() < NAMED_LATER:
            hero = film.film.shown(shot)
        texts.append(caption(hero, shot, rng, walled=walled or rng.random() < NAMED_LATER))
    cuts = heads(film.shots)[1:]
    return tuple(CUT_PREFIX * (s.block in cuts) + texts[film.shots[s.block]] for s in made)


def segment_positions(blocks: Tensor, made: Sequence[Segment]) -> Tensor:
    """RoPE position of each latent frame `[F]`, given those of the film's blocks, `[blocks, BLOCK_FRAMES]`.

    Recalled blocks have those right before the shot.
    """
    return torch.cat([blocks[s.block] if s.before is None else blocks[s.before] - BLOCK_FRAMES for s in made])
