"""Inputs that several nodes have, with one range and one default; a schema gives the name, so that it can be read."""

from __future__ import annotations

from comfy_api.latest import io

from ..longlive_core.types import SPACE_FACTOR, PixelShape
from .types import MemoryType

SIZE_UNIT = 2 * SPACE_FACTOR


def side_input(name: str, default: int, tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=SIZE_UNIT, max=4096, step=SIZE_UNIT, tooltip=tooltip)


def steps_input(name: str) -> io.Int.Input:
    told = "Denoising steps per block: 4, or 2 with a two-step LoRA."
    return io.Int.Input(name, default=4, min=1, max=50, tooltip=told)


def guidance_input(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.0, max=20.0, step=0.1, tooltip=tooltip)


def memory_input(name: str, tooltip: str) -> MemoryType.Input:
    return MemoryType.Input(name, optional=True, tooltip=tooltip)


def check_sides(width: int | None, height: int | None) -> None:
    """Raises ValueError for a size that is not in whole cells; a side that comes over a wire is None."""
    _ = PixelShape(1, 1, height or SIZE_UNIT, width or SIZE_UNIT).latent
