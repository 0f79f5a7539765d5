"""Clips of a ninth colour and a fifth shape, which LongLive Mini was not trained on: lime, and a cross.

The embedded VAE was not trained on them either. It keeps a cross, with rounded corners, but draws most other colours as
the nearest of its eight; lime, between yellow and green, stays apart.

    python tests/core/training/taught_world.py FOLDER [COUNT [KNOWN]]

writes COUNT clips (20), and into FOLDER_known KNOWN films (0) that the model makes itself of heroes that it knows, each
with its shot script: the prior of a LoRA.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from longlive.longlive_core.mini import LATENT_SIZE
from longlive.longlive_core.render.load_model import load_model
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.training import world
from longlive.longlive_core.training.captions import SHAPE_WORDS, UNNAMED, hero_phrase, shot_phrase
from longlive.longlive_core.types import BLOCK_FRAMES, FPS, video_frames
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.video import VideoWriter
from numpy.typing import NDArray
from torch import Tensor

LIME, CROSS = "lime", "cross"
COLOURS = {**world.COLOURS, LIME: (150, 210, 60)}
SHAPES = (*world.SHAPES, CROSS)
# Blocks of the shots of a clip.
PATTERNS = ((1, 1, 1), (2, 1), (1, 2), (2, 2), (1, 1, 2))


@dataclass(frozen=True)
class TaughtClip:
    """A clip: shape, colour and size of its hero, and its shots."""

    shape: str
    colour: str
    size: str
    shots: tuple[world.WorldShot, ...]


def mask(shape: str, size: str, centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of each pixel that the hero covers, `[T, 128, 128]`, for centres `[T, 2]` in pixels."""
    if shape != CROSS:
        return world.hero_mask(world.Hero(shape, "red", size), centre)  # type: ignore[arg-type]
    grid = np.arange(world.SIZE, dtype=np.float32) + 0.5
    x = np.abs(grid[None, None, :] - centre[:, 0, None, None])
    y = np.abs(grid[None, :, None] - centre[:, 1, None, None])
    r = np.float32(world.SIZES[size] * world.SIZE)
    bar, other = (np.maximum(a - r, b - r / 3) for a, b in ((x, y), (y, x)))
    return np.clip(0.5 - np.minimum(bar, other), 0, 1).astype(np.float32)


def render(clip: TaughtClip) -> NDArray[np.uint8]:
    """The frames of a clip, `[T, 128, 128, 3]`."""
    colour = np.array(COLOURS[clip.colour], dtype=np.float32)
    pieces: list[NDArray[np.uint8]] = []
    for shot in clip.shots:
        seconds = (np.arange(shot.frames) / FPS).astype(np.float32)
        share = mask(clip.shape, clip.size, world.hero_centre(shot, seconds))[..., None]
        pieces.append((world.background(shot, seconds) * (1 - share) + colour * share).round().astype(np.uint8))
    return np.concatenate(pieces)


def _shots(rng: np.random.Generator) -> tuple[world.WorldShot, ...]:
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    ends = [video_frames(BLOCK_FRAMES * blocks) for blocks in np.cumsum(pattern)]
    return tuple(world.sample_shot(rng, int(frames)) for frames in np.diff([0, *ends]))


def random_clip(index: int, seed: int = 0) -> tuple[TaughtClip, str]:
    """Clip `index` and its shot script, whose first shot describes the hero.

    Of ten clips four have both new things, three the colour and three the shape, so that each can be told apart.
    """
    rng = np.random.default_rng((seed, 901, index))
    shape = CROSS if index % 10 in (0, 1, 2, 3, 4, 5, 6) else world.SHAPES[index % 4]
    colour = LIME if index % 10 in (0, 1, 2, 3, 7, 8, 9) else list(world.COLOURS)[(index * 3 + index // 10) % 8]
    size = list(world.SIZES)[rng.integers(2)]
    shots = _shots(rng)
    word = CROSS if shape == CROSS else SHAPE_WORDS[shape][rng.integers(3)]
    return TaughtClip(shape, colour, size, shots), _script(f"a {size} {colour} {word}", shots, rng)


def _script(hero: str, shots: Sequence[world.WorldShot], rng: np.random.Generator) -> str:
    """A shot script whose first shot names the hero."""
    lines: list[str] = []
    for number, shot in enumerate(shots):
        subject = UNNAMED[rng.integers(len(UNNAMED))] if number else hero
        lines.append(f"Shot {number + 1} ({shot.frames}f): {subject} {shot_phrase(shot, rng)}")
    return "\n".join(lines) + "\n"


def known_script(index: int, seed: int = 0) -> str:
    """A shot script of a hero of the world that the model was trained on."""
    rng = np.random.default_rng((seed, 903, index))
    hero = world.Hero(world.SHAPES[index % 4], list(world.COLOURS)[index // 4 % 8], list(world.SIZES)[rng.integers(2)])
    return _script(hero_phrase(hero, rng), _shots(rng), rng)


def write_clips(folder: Path, count: int = 20, seed: int = 0) -> None:
    """Writes clips as H.264 in MP4, each with its shot script beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        clip, script = random_clip(index, seed)
        _write(folder / f"clip_{index:02}.mp4", torch.from_numpy(render(clip)), script)


def write_known(folder: Path, count: int, seed: int = 0) -> None:
    """Writes films that the model makes of heroes that it knows, each with its shot script beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    mini = load_model("mini")
    for index in range(count):
        script = known_script(index, seed)
        stream = DecodeStream(mini.vae)
        plan = ShotScript.parse(script).plan()
        for block in generate(mini.model, plan, mini.encode_text, size=LATENT_SIZE, seed=index, seam="align"):
            stream.feed(block.latents)
        _write(folder / f"known_{index:02}.mp4", torch.cat(stream.flush()), script)


def _write(path: Path, frames: Tensor, script: str) -> None:
    with VideoWriter(path, width=world.SIZE, height=world.SIZE, fps=FPS) as writer:
        writer.write(frames)
    path.with_suffix(".txt").write_text(script, encoding="utf-8")


if __name__ == "__main__":
    write_clips(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
    write_known(Path(f"{sys.argv[1]}_known"), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
