"""Windows of video frames: where a film is looked at, how windows are decoded, how they flicker.

A window is four latent frames, or 16 video frames, around or away from a seam between blocks:

    block      k - 1                     | k                        … last block of the shot
    latent     … 3  4   5  6   7 (seam) | 0  1  2  3  4  5  6  7   … 4  5  6  7
    seam            w w w  ▪   ▪         | ▪  ▪                                       w: warm-up, ▪: the window
    head                                   ▪  ▪  ▪  ▪        first block of a shot
    middle                                       ▪  ▪  ▪  ▪
    end                                                                    ▪  ▪  ▪  ▪

Only windows are decoded, because a decoder forgets. After three latent frames, a change in earlier latents changes no
pixel by as much as one level. So the decoder is given the first latent frame of the film and then the latent frames of
each window with three before it, as if the film cut from one window to the next. Windows that touch are decoded as one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..script import BlockPlan
from ..types import TIME_FACTOR, Block, video_frames
from ..vae import DecodeStream, WanVAE

Frames = NDArray[np.uint8]
Kind = Literal["head", "seam", "middle", "end"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

WARM_UP: Final = 3  # latent frames decoded before a window
REACH: Final = 2  # latent frames of a window on each side of its centre
WINDOW_FRAMES: Final = 2 * REACH * TIME_FACTOR


@dataclass(frozen=True, slots=True)
class Window:
    """Video frames of `block` in shot `shot`; those at a seam begin in the block before.

    centre: the latent frame before which half of the window lies; at a seam, the first one of `block`.
    """

    shot: int
    block: int
    centre: int
    kind: Kind = "seam"

    @property
    def start(self) -> int:
        """Index of the window's first video frame in the film."""
        return video_frames(self.centre - REACH)

    @property
    def stop(self) -> int:
        """Index of the video frame after the window."""
        return video_frames(self.centre + REACH)


def plan_windows(plan: BlockPlan, every: int = 1, kinds: Sequence[Kind] = KINDS) -> tuple[Window, ...]:
    """The windows of a film, in its order.

    In each shot: its first latent frames, its last ones, the seams after its blocks 0, `every`, 2 · `every`, …, and the
    middles of the blocks after these seams, or of the only block. The first latent frame of a film has one video frame,
    so that the first window begins with the second one.
    """
    windows: list[Window] = []
    for shot, group in groupby(plan.blocks, key=lambda block: block.shot):
        blocks = list(group)
        first, last = blocks[0], blocks[-1]
        windows.append(Window(shot, first.index, first.start + REACH + (first.start == 0), "head"))
        for block in blocks[1::every]:
            windows.append(Window(shot, block.index, block.start, "seam"))
        for block in blocks[1::every] or blocks:
            windows.append(Window(shot, block.index, block.start + block.frames // 2, "middle"))
        windows.append(Window(shot, last.index, last.start + last.frames - REACH, "end"))
    return tuple(sorted((window for window in windows if window.kind in kinds), key=lambda window: window.centre))


def decode_windows(vae: WanVAE, blocks: Iterable[Block], windows: Iterable[Window]) -> Iterator[tuple[Window, Frames]]:
    """Yields each window with its video frames `[16, H, W, 3]` uint8, as soon as its last block is generated."""
    pending = deque(sorted(windows, key=lambda window: window.centre))
    reach = (range(max(0, w.centre - REACH - WARM_UP), w.centre + REACH) for w in pending)
    needed = {0, *(frame for frames in reach for frame in frames)}
    decoded: dict[int, Frames] = {}
    for frame, frames in _decode(vae, blocks, needed):
        decoded = {f: kept for f, kept in decoded.items() if f > frame - 2 * REACH} | {frame: frames}
        while pending and pending[0].centre + REACH - 1 == frame:
            yield pending.popleft(), np.concatenate([decoded[f] for f in sorted(decoded)])


def decode_film(vae: WanVAE, blocks: Iterable[Block]) -> Frames:
    """All video frames of a film, `[T, H, W, 3]` uint8."""
    return np.concatenate([frames for _, frames in _decode(vae, blocks, None)])


def decode_frames(vae: WanVAE, blocks: Iterable[Block]) -> Iterator[Frames]:
    """Yields the video frames `[H, W, 3]` uint8 of blocks as if a film began with the first one."""
    for _, frames in _decode(vae, blocks, None):
        yield from frames


def _decode(vae: WanVAE, blocks: Iterable[Block], needed: set[int] | None) -> Iterator[tuple[int, Frames]]:
    """Yields the latent frames in `needed` (None: all) with their video frames, as if there were no others."""
    stream = DecodeStream(vae)
    for block in blocks:
        for index in range(block.frames):
            if needed is None or block.start + index in needed:
                stream.feed(block.latents[:, :, index : index + 1])
                yield block.start + index, torch.cat(stream.flush()).numpy()


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
