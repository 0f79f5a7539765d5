"""The small pictures of a take's versions."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from .block_file import write_atomically
from .take import Take

STILL_PIXELS, STILL_QUALITY = 256, 85


def save_still(take: Take, shot: int, version: int, frame: Tensor) -> None:
    """Stores a frame `[H, W, 3]` uint8 as the picture of a version of a shot; both count from 0. Raises OSError."""
    image = Image.fromarray(frame.cpu().numpy())
    image.thumbnail((STILL_PIXELS, STILL_PIXELS))

    def save(path: Path) -> None:
        image.save(path, "JPEG", quality=STILL_QUALITY)

    write_atomically(take.still(shot, version), save)
