"""What every film takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def checked_frames(frames: Tensor | NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Frames on the CPU. Raises ValueError where they are not uint8 [T, height, width, 3]."""
    pixels = frames.cpu().numpy() if isinstance(frames, Tensor) else frames
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (height, width, 3):
        raise ValueError(
            f"frames are {pixels.dtype} {list(pixels.shape)}; this film takes uint8 [T, {height}, {width}, 3]"
        )
    return pixels
