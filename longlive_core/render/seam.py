"""Measures the step between frames where one shot follows another."""

from __future__ import annotations

from ..evaluation.windows import Flicker, Window, decode_windows, measure_flicker
from ..take.block_file import load_block
from ..take.take import Take
from ..vae import WanVAE


def seam_flicker(take: Take, vae: WanVAE, shot: int) -> Flicker:
    """Measures the steps between frames around the end of a shot (from 0, not the last one) of the film as chosen.

    Decodes sixteen frames, whatever the length of the film. Raises FileNotFoundError or BadBlockError if a block on
    either side is missing or damaged.
    """
    plan = take.plan.blocks
    after = next(block for block in plan if block.shot == shot + 1)
    specs = (plan[0], *plan[max(1, after.index - 1) : after.index + 1])
    blocks = [load_block(take.path(spec), spec, take.settings)[0] for spec in specs]
    ((_, frames),) = decode_windows(vae, blocks, [Window(after.shot, after.index, after.start)])
    return measure_flicker(frames)


def format_flicker(flicker: Flicker) -> str:
    """Describes the size of the step across a seam in one line."""
    ratio = flicker.seam / max(flicker.boundary, 1e-6)
    return (
        f"step across the seam {flicker.seam:.1f} levels of 255, across other latent frames {flicker.boundary:.1f}: "
        f"{ratio:.2f} times"
    )
