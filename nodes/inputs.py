"""Inputs that several nodes share, with the same range and default."""

from __future__ import annotations

from typing import Literal, get_args

from comfy_api.latest import io

from ..longlive_core.sampling import MAX_SEED
from ..longlive_core.types import FPS, SPACE_FACTOR

SeamChoice = Literal["auto", "plain", "align"]

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


def seam_input(name: str) -> io.Combo.Input:
    """Makes an optional input for the way in which blocks join.

    A prompt of an older version has no such value; `execute` must take it as plain, so that its take goes on.
    """
    tooltip = (
        "How blocks of a shot join. plain: as LongLive 2.0 does. align: no step between blocks, for 9/8 of the time. "
        "auto: as the film of state, else align for LongLive Mini and plain for LongLive 5B."
    )
    return io.Combo.Input(name, options=list(get_args(SeamChoice)), default="auto", optional=True, tooltip=tooltip)


def strength_input(name: str, tooltip: str) -> io.Float.Input:
    """Makes an input for the strength of a LoRA."""
    return io.Float.Input(name, default=1.0, min=-10.0, max=10.0, step=0.05, tooltip=tooltip)


def guidance_input(name: str, tooltip: str) -> io.Float.Input:
    """Makes an input for the guidance scale."""
    return io.Float.Input(name, default=1.0, min=0.0, max=20.0, step=0.1, tooltip=tooltip)
