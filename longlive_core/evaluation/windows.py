"""Short windows around seams between blocks, the only parts of a film that an evaluation decodes.

After three latent frames, earlier frames change a decoded pixel by less than one level of 255. Therefore the decoder
gets the first latent frame of the film and then the windows, each with three latent frames to warm up:

    block      k - 1                     | k
    latent     … 3  4   5  6   7 (seam) | 0  1  2 …
    window          w w w  ▪   ▪         | ▪  ▪            w: warm-up, ▪: evaluated (16 video frames)
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

WARM_UP: Final = 3
# Evaluated latent frames on either side of a seam.
REACH: Final = 2
WINDOW_FRAMES: Final = 2 * REACH * TIME_FACTOR


@dataclass(frozen=True, slots=True)
class Window:
    """Frames around the seam before `block`, which is in the same shot as the previous block.

    `seam` is the first latent frame of the block.
    """

    shot: int
    block: int
    seam: int

    @property
    def start(self) -> int:
        """Index of the first video frame."""
        return video_frames(self.seam - REACH)

    @property
    def stop(self) -> int:
        """Index after the last video frame."""
        return video_frames(self.seam + REACH)


def plan_windows(plan: BlockPlan, every: int = 1) -> tuple[Window, ...]:
    """Plan one window per shot and interval of `every` blocks, at the first seam that is not a cut."""
    windows: dict[tuple[int, int], Window] = {}
    for before, block in zip(plan.blocks, plan.blocks[1:], strict=False):
        if before.shot == block.shot:
            windows.setdefault((block.shot, block.index // every), Window(block.shot, block.index, block.start))
    return tuple(windows.values())


def decode_windows(vae: WanVAE, blocks: Iterable[Block], windows: Iterable[Window]) -> Iterator[tuple[Window, Frames]]:
    """Yield each window with its frames `[16, H, W, 3]` uint8 as soon as its block is finished."""
    wanted = {window.block: window for window in windows}
    stream = DecodeStream(vae)
    last = None
    for block in blocks:
        if last is None:
            stream.feed(block.latents[:, :, :1])
            stream.flush()
        elif window := wanted.get(block.index):
            stream.feed(torch.cat((last[:, :, -REACH - WARM_UP :], block.latents[:, :, :REACH]), dim=2))
            yield window, torch.cat(stream.flush())[-WINDOW_FRAMES:].numpy()
        last = block.latents
