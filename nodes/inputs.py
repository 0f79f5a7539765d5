"""Inputs that several nodes share, with the same range and default."""

from __future__ import annotations

from comfy_api.latest import io

from ..longlive_core.sampling import MAX_SEED
from ..longlive_core.types import FPS, SPACE_FACTOR

SIZE_UNIT = 2 * SPACE_FACTOR


def text_input(name: str, default: str, tooltip: str, *, advanced: bool | None = None) -> io.String.Input:
    """Makes an input for a text of several lines, in which ComfyUI replaces nothing."""
    return io.String.Input(
        name, multiline=True, dynamic_prompts=False, default=default, advanced=advanced, tooltip=tooltip
    )


def seed_input(name: str, default: int, tooltip: str) -> io.Int.Input:
    """Makes an input for a seed, which is unchanged after a run unless the user chooses otherwise."""
    control = io.ControlAfterGenerate.fixed
    return io.Int.Input(name, default=default, min=0, max=MAX_SEED, control_after_generate=control, tooltip=tooltip)


def side_input(name: str, default: int, tooltip: str) -> io.Int.Input:
    """Makes an input for a width or height in pixels."""
    return io.Int.Input(name, default=default, min=SIZE_UNIT, max=4096, step=SIZE_UNIT, tooltip=tooltip)


def seconds_input(name: str, least: float, tooltip: str) -> io.Float.Input:
    """Makes an input for the length of a shot."""
    return io.Float.Input(name, default=4.0, min=least, max=3600.0, step=0.1, tooltip=tooltip)


def fps_input(name: str, tooltip: str) -> io.Float.Input:
    """Makes an input for a frame rate."""
    return io.Float.Input(name, default=float(FPS), min=1.0, max=120.0, step=1.0, tooltip=tooltip)


def steps_input(name: str) -> io.Int.Input:
    """Makes an input for the number of denoising steps."""
    tooltip = "Denoising steps per block: 4, or 2 with a two-step LoRA."
    return io.Int.Input(name, default=4, min=1, max=50, tooltip=tooltip)


def strength_input(name: str, tooltip: str) -> io.Float.Input:
    """Makes an input for the strength of a LoRA."""
    return io.Float.Input(name, default=1.0, min=-10.0, max=10.0, step=0.05, tooltip=tooltip)


def guidance_input(name: str, tooltip: str) -> io.Float.Input:
    """Makes an input for the guidance scale."""
    return io.Float.Input(name, default=1.0, min=0.0, max=20.0, step=0.1, tooltip=tooltip)
