"""How many films a device holds at once: what each film of a batch takes beside the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..memory import MemoryConfig
from ..model import WanConfig
from ..types import LatentShape
from ..units import format_bytes, plural
from .budget import activation_bytes, graphs_of_passes, overlap_bytes

MAX_FILMS = 16
"""The most films that are asked for at a time."""


@dataclass(frozen=True, slots=True)
class FilmSize:
    """What the bytes of a film depend on.

    block: the shape of one block of one film. blocks: length of the film, None for one that fills the window. branches:
    2 with guidance. align: `seam: align`. dtype: of the activations. ranks: that share tokens and heads.
    graphs: CUDA graphs of the passes.
    """

    model: WanConfig
    memory: MemoryConfig
    block: LatentShape
    blocks: int | None = None
    branches: int = 1
    align: bool = False
    dtype: torch.dtype = torch.bfloat16
    ranks: int = 1
    graphs: bool = False

    def bytes(self, films: int) -> int:
        """Bytes of so many films at once: their K/V with the scratch buffer, and activations; prompts are shared."""
        block = self.block.with_batch(films)
        window = self.memory.window if self.blocks is None else min(self.memory.window, self.blocks * block.frames)
        number, ranks = self.dtype.itemsize, self.ranks
        scratch = self.memory.scratch_bytes(self.model, block, self.blocks, self.dtype, ranks)
        overlap = overlap_bytes(self.model, block, window, number, ranks) if self.align else 0
        kv = self.memory.bytes(self.model, block, self.blocks, self.branches, ranks)
        graphs = 0
        if self.graphs:
            graphs = graphs_of_passes(self.model, block, window, self.branches, align=self.align, number=number)
        return kv + scratch + activation_bytes(self.model, block, number, ranks) + overlap + graphs


@dataclass(frozen=True, slots=True)
class FilmsAtOnce:
    """How many of the `wanted` films are sampled at once.

    needed: bytes of all of them. free: bytes that they may take, None if unknown.
    """

    wanted: int
    fits: int
    needed: int
    free: int | None

    @property
    def text(self) -> str:
        """One line on the films at once, and on the memory that more would need."""
        at_once = f"{plural(self.fits, 'film')} at once"
        of = "" if self.free is None else f" of {format_bytes(self.free)}"
        needs = f"{format_bytes(self.needed)}{of} beside the weights"
        return f"{at_once}: {needs}" if self.fits == self.wanted else f"{at_once}: {self.wanted} would need {needs}"


def films_at_once(wanted: int, size: FilmSize, free: int | None) -> FilmsAtOnce:
    """The largest number of films, up to `wanted` and at least 1, that `free` bytes hold beside the weights.

    Raises ValueError for a number outside 1 … MAX_FILMS, and as `MemoryConfig.bytes`.
    """
    check_films(wanted)
    fits = wanted if free is None else next((n for n in range(wanted, 1, -1) if size.bytes(n) <= free), 1)
    return FilmsAtOnce(wanted, fits, size.bytes(wanted), free)


def check_films(wanted: int) -> None:
    """Raises ValueError for a number of films outside 1 … MAX_FILMS."""
    if not 1 <= wanted <= MAX_FILMS:
        raise ValueError(f"{wanted} films of one script: make 1 to {MAX_FILMS} at a time")
