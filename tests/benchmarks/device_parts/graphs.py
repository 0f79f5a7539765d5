"""Sampling with and without CUDA graphs, visited in turn: eager, graphs, graphs, eager.

Passes in FP8 and two steps are the fastest ones, whose launches the host may not keep up with. The film of each visit
is compared with that of the first one. A time is that of a block after the one that records the graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter

import torch
from torch import Tensor

from .arms import FIVE_B, TOY
from .films import STEADY, Models
from .ladder import clear
from .part import Found, Skipped, Task
from .timing import CUDA, abba_order

BLOCKS = STEADY + 2
WEIGHTS, STEPS = "fp8", 2
TOLERANCE = 2e-2
"""Limit of the relative L2 difference: another choice of a library's kernel would change roundings to bf16."""


@dataclass
class Visits:
    """The model, and the film of the first visit, `[1, C, F, H, W]`."""

    models: Models
    first: Tensor | None = None


def tasks(toy: bool) -> list[Task]:
    """Two visits of each way."""
    visits = Visits(Models(TOY if toy else FIVE_B, toy))
    names = {False: "one launch for each op", True: "CUDA graphs"}
    return [Task(names[graphs], partial(visit, visits, graphs)) for graphs in abba_order((False, True), 2)]


@torch.inference_mode()
def visit(visits: Visits, graphs: bool) -> Found:
    """Milliseconds of sampling a block, latents on the host, and how far the film is from the first visit's."""
    if graphs and not CUDA:
        raise Skipped("CUDA graphs need CUDA")
    clear()
    marks, blocks = [perf_counter()], list[Tensor]()
    for block in visits.models.film(WEIGHTS, steps=STEPS, blocks=BLOCKS, graphs=graphs):
        marks.append(perf_counter())
        blocks.append(block.latents)
    film = torch.cat(blocks, dim=2)
    if visits.first is None:
        visits.first = film
    error = float((film - visits.first).norm() / visits.first.norm())
    figures: dict[str, float | str] = {"difference": error, "frames of a block": 4 * visits.models.size.frames}
    if not error <= TOLERANCE:
        return Found(figures, red=f"the film differs by {error:.1e}, more than {TOLERANCE:.1e}")
    spent = [1e3 * (end - start) for start, end in pairwise(marks)]
    return Found(figures, {"ms a block": spent[STEADY:]})
