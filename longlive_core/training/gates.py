"""Gates of LongLive Mini's training: the share of frames of held-out films that show the right shape.

The error of the flow says little about shapes, and the films say all. In each film, the first shot's caption describes
the hero (its frames are `named`) and the second shot's does not (`carried`): its shape can only come from memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..mini import LATENT_SIZE, Mini
from ..sampling.generate import generate
from ..script import ShotScript
from ..types import BLOCK_FRAMES, TIME_FACTOR, video_frames
from . import world
from .captions import caption

# Reads the shape of the hero in a frame `[H, W, 3]`; None if there is no hero.
ShapeReader = Callable[[NDArray[np.uint8]], str | None]

HELD_OUT: Final = 7_220_260_118  # part of the seeds of these films, so that they are in no other set
SHOT_BLOCKS: Final = 2
SHOTS: Final = ("named", "carried")
STEPS: Final = 4


def shape_gates(mini: Mini, read: ShapeReader, films: int = 16) -> dict[str, float]:
    """Returns shares of frames, read once per latent frame, for both kinds of shots.

    "named" and "carried" are the shares with the right shape after four steps, "named first call" and "carried first
    call" those after one step. "named square" is the share of one shape, and "named square as circle" of one fault.
    """
    gates: dict[str, float] = {}
    for steps, suffix in ((STEPS, ""), (1, " first call")):
        counts: dict[str, Counter[tuple[str, str | None]]] = {shot: Counter() for shot in SHOTS}
        for index in range(films):
            film, script = gate_film(index)
            for shot, frames in zip(SHOTS, _shots(_sample(mini, script, steps, index), film), strict=True):
                counts[shot].update((film.hero.shape, read(frame)) for frame in frames)
        for shot, counter in counts.items():
            right = sum(count for (true, seen), count in counter.items() if true == seen)
            gates[shot + suffix] = right / max(1, counter.total())
            if not suffix:
                gates |= _confusion(shot, counter)
    return gates


def gate_film(index: int) -> tuple[world.WorldFilm, str]:
    """Held-out film `index` and the script that asks for it. Shapes take turns."""
    rng = np.random.default_rng((HELD_OUT, index))
    cut, end = (video_frames(BLOCK_FRAMES * SHOT_BLOCKS * shots) for shots in (1, 2))
    film = world.sample_film(rng, (cut, end - cut))
    film = replace(film, hero=replace(film.hero, shape=world.SHAPES[index % len(world.SHAPES)]))
    texts = [caption(hero, shot, rng) for hero, shot in zip((film.hero, None), film.shots, strict=True)]
    return film, "\n".join(f"Shot {i} ({SHOT_BLOCKS} blocks): {text}" for i, text in enumerate(texts, 1))


def _sample(mini: Mini, script: str, steps: int, seed: int) -> NDArray[np.uint8]:
    """Video frames `[T, H, W, 3]` of a script."""
    plan = ShotScript.parse(script).plan(block_frames=BLOCK_FRAMES)
    with torch.inference_mode():
        blocks = generate(mini.model, plan, mini.encode_text, size=LATENT_SIZE, steps=steps, seed=seed)
        latents = torch.cat([block.latents for block in blocks], dim=2)
        video = mini.vae.reconstruct(mini.vae.to_vae_space(latents))[0].clamp(-1, 1)
    return ((video + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu().numpy()


def _shots(video: NDArray[np.uint8], film: world.WorldFilm) -> list[NDArray[np.uint8]]:
    """One frame of each latent frame of each shot."""
    cut, middle = film.shots[0].frames, TIME_FACTOR // 2
    return [video[middle:cut:TIME_FACTOR], video[cut + middle :: TIME_FACTOR]]


def _confusion(shot: str, counter: Counter[tuple[str, str | None]]) -> dict[str, float]:
    """Share of each shape that is right, and of each fault that occurs."""
    shares: dict[str, float] = {}
    for shape in world.SHAPES:
        total = max(1, sum(count for (true, _), count in counter.items() if true == shape))
        shares[f"{shot} {shape}"] = counter[shape, shape] / total
        faults = {seen: count for (true, seen), count in counter.items() if true == shape != seen}
        shares |= {f"{shot} {shape} as {seen or 'nothing'}": count / total for seen, count in faults.items()}
    return shares
