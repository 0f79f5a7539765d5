"""Where a film is looked at: short windows around seams between blocks, the only parts that are decoded.

The decoder forgets: after three latent frames of the film's own, what came before changes a pixel by less than
a level. So it is given the film's first latent frame and then windows, as if cuts lay between them:

    block      k - 1                     | k
    latent     … 3  4   5  6   7 (seam) | 0  1  2 …
    window          w w w  ▪   ▪         | ▪  ▪            w warms up, ▪ is looked at: 16 video frames
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
# Latent frames looked at on either side of a seam.
REACH: Final = 2
WINDOW_FRAMES: Final = 2 * REACH * TIME_FACTOR


@dataclass(frozen=True, slots=True)
class Window:
    """The surroundings of the seam before `block`, which belongs to the same shot as the block before it.

    `seam` is the latent frame with which the block starts.
    """

    shot: int
    block: int
    seam: int

    @property
    def start(self) -> int:
        """First video frame of the window in the film."""
        return video_frames(self.seam - REACH)

    @property
    def stop(self) -> int:
        return video_frames(self.seam + REACH)


def plan_windows(plan: BlockPlan, every: int = 1) -> tuple[Window, ...]:
    """One window per shot and stretch of `every` blocks: at the first seam in there that is no cut."""
    windows: dict[tuple[int, int], Window] = {}
    for before, block in zip(plan.blocks, plan.blocks[1:], strict=False):
        if before.shot == block.shot:
            windows.setdefault((block.shot, block.index // every), Window(block.shot, block.index, block.start))
    return tuple(windows.values())


def decode_windows(vae: WanVAE, blocks: Iterable[Block], windows: Iterable[Window]) -> Iterator[tuple[Window, Frames]]:
    """Each window with its frames `[16, H, W, 3]` uint8, as soon as its block is made."""
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
