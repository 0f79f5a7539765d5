"""Reads the start image of a take's film."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .block_file import BadBlockError, load_block
from .take import Take


def load_start_image(take: Take) -> Tensor | None:
    """Returns the latents `[1, C, 1, H, W]` of the start image, or None for a film without a start image.

    Every version of the film's first block begins with the image. Raises ValueError if no version of it is stored.
    """
    if not str(take.settings.get("start") or "").startswith("image"):
        return None
    first = take.shots[0]
    for version in range(len(first.versions)):
        candidate = take.with_shot(0, replace(first, chosen=version))
        spec = candidate.plan.blocks[0]
        try:
            return load_block(candidate.path(spec), spec, take.settings)[0].latents[:, :, :1]
        except (FileNotFoundError, BadBlockError):
            continue
    raise ValueError(
        f"{take.folder} begins with an image, and no version of its first block, which holds the image, is stored: "
        "queue the workflow that has the image"
    )
