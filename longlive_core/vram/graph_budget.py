"""The VRAM that CUDA graphs hold for as long as a film is made, beside what ordinary passes take.

A graph's tensors lie in a pool of its own, which nothing else may use between two runs, and it reads its inputs and
writes its results at addresses that stay:

    passes     the intermediates of one pass, whichever is largest; for each branch of guidance and each kind of pass
               (step, clean pass, step with a frame in front) its latents, and the flow of a step; a prompt a branch
    decoder    a state, beside which the next film begins with one of its own; the intermediates of a latent frame
               are those that the plan has without graphs
"""

from __future__ import annotations

from math import prod

from ..sampling.seam import OVERLAP
from ..types import LatentShape

# Timesteps and positions of a latent frame, 8 bytes each at most.
TIMES = 16


def pass_graph_bytes(block: LatentShape, number: int, pool: int, *, branches: int, align: bool) -> int:
    """Bytes of the graphs of a film's passes without its prompts.

    block: of one pass. number: bytes of one number of the activations. pool: of the intermediates of one pass.
    """
    longer = block.with_frames(block.frames + OVERLAP)
    shapes = [block, block, block] + ([longer, longer] if align else [])
    latents = sum(number * prod(shape.as_tuple()) + TIMES * shape.batch * shape.frames for shape in shapes)
    return pool + branches * latents


def decoder_graph_bytes(cells: int, cache: int, first: int) -> int:
    """Bytes of the graph of a decoder.

    cells: of a latent frame. cache, first: bytes of the state, and beside it for a first latent frame, for each cell.
    """
    return cells * (cache + first)
