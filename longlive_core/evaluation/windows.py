"""Windows of video frames around the seams between blocks: where they are, how they are decoded, how they flicker.

Only windows are decoded, because a decoder forgets. After three latent frames, a change in earlier latents changes no
pixel by as much as one level. So the decoder is given the first latent frame of the film and then the latent frames of
each window, as if the film cut from one window to the next:

    block      k - 1                     | k
    latent     … 3  4   5  6   7 (seam) | 0  1  2 …
    window          w w w  ▪   ▪         | ▪  ▪            w: warm-up, ▪: the window of 16 video frames
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..script import BlockPlan
from ..types import TIME_FACTOR, Block, video_frames
from ..vae import DecodeStream, WanVAE

Frames = NDArray[np.uint8]

WARM_UP: Final = 3  # latent frames decoded before a window
REACH: Final = 2  # latent frames of a window on each side of the seam
WINDOW_FRAMES: Final = 2 * REACH * TIME_FACTOR


@dataclass(frozen=True, slots=True)
class Window:
    """Video frames around the seam between `block` and the block before it, both in shot `shot`.

    seam: the first latent frame of `block`.
    """

    shot: int
    block: int
    seam: int

    @property
    def start(self) -> int:
        """Index of the window's first video frame in the film."""
        return video_frames(self.seam - REACH)

    @property
    def stop(self) -> int:
        """Index of the video frame after the window."""
        return video_frames(self.seam + REACH)


def plan_windows(plan: BlockPlan, every: int = 1) -> tuple[Window, ...]:
    """One window for each shot and each interval of `every` blocks: at the first seam in it that is not a cut."""
    windows: dict[tuple[int, int], Window] = {}
    for before, block in zip(plan.blocks, plan.blocks[1:], strict=False):
        if before.shot == block.shot:
            windows.setdefault((block.shot, block.index // every), Window(block.shot, block.index, block.start))
    return tuple(windows.values())


def decode_windows(vae: WanVAE, blocks: Iterable[Block], windows: Iterable[Window]) -> Iterator[tuple[Window, Frames]]:
    """Yields each window with its video frames `[16, H, W, 3]` uint8, as soon as its block is generated."""
    by_block = {window.block: window for window in windows}
    stream = DecodeStream(vae)
    previous = None
    for block in blocks:
        if previous is None:
            stream.feed(block.latents[:, :, :1])
            stream.flush()
        elif window := by_block.get(block.index):
            stream.feed(torch.cat((previous[:, :, -REACH - WARM_UP :], block.latents[:, :, :REACH]), dim=2))
            yield window, torch.cat(stream.flush())[-WINDOW_FRAMES:].numpy()
        previous = block.latents


@dataclass(frozen=True, slots=True)
class Flicker:
    """Mean absolute difference of consecutive video frames in levels of 255.

    seam: across the seam between two blocks. boundary: across the other boundaries of latent frames. inside: over all
    pairs of frames within a block.
    """

    seam: float
    boundary: float
    inside: float


def measure_flicker(frames: Frames) -> Flicker:
    """Differences between the video frames `[16, H, W, 3]` uint8 of a window, with the seam in the middle.

    Two latent frames always differ more than the four video frames of one latent frame. So a seam is to be compared
    with the other boundaries of latent frames.
    """
    differences = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    pairs = np.arange(1, len(differences) + 1)
    seam = pairs == REACH * TIME_FACTOR
    boundary = (pairs % TIME_FACTOR == 0) & ~seam
    return Flicker(*(float(differences[which].mean()) for which in (seam, boundary, ~seam)))
