"""Inputs that several nodes share, with the same range and default."""

from __future__ import annotations

from comfy_api.latest import io

from ..longlive_core.types import SPACE_FACTOR, PixelShape
from .types import MemoryType

SIZE_UNIT = 2 * SPACE_FACTOR


def side_input(name: str, default: int, tooltip: str) -> io.Int.Input:
    """Makes an input for a width or height in pixels."""
    return io.Int.Input(name, default=default, min=SIZE_UNIT, max=4096, step=SIZE_UNIT, tooltip=tooltip)


def steps_input(name: str) -> io.Int.Input:
    """Makes an input for the number of denoising steps."""
    tooltip = "Denoising steps per block: 4, or 2 with a two-step LoRA."
    return io.Int.Input(name, default=4, min=1, max=50, tooltip=tooltip)


def guidance_input(name: str, tooltip: str) -> io.Float.Input:
    """Makes an input for the guidance scale."""
    return io.Float.Input(name, default=1.0, min=0.0, max=20.0, step=0.1, tooltip=tooltip)


def memory_input(name: str, tooltip: str) -> MemoryType.Input:
    """Makes an optional input for a MemoryConfig."""
    return MemoryType.Input(name, optional=True, tooltip=tooltip)


def check_sides(width: int | None, height: int | None) -> None:
    """Raises ValueError if a side is not a whole number of latent cells. None: the side comes over a wire."""
    _ = PixelShape(1, 1, height or SIZE_UNIT, width or SIZE_UNIT).latent
