"""Sampling: from a block plan to latents, with noise, the UniPC schedule and snapshots."""

from .generate import generate
from .generation import Generation, KnownLatents, NotFiniteError, Plan, Step
from .noise import MAX_SEED, NoiseSource, block_noise, film_noise
from .seam import SEAMS, Seam
from .snapshot import Snapshot
from .unipc import Schedule, unipc

__all__ = [
    "MAX_SEED",
    "SEAMS",
    "Generation",
    "KnownLatents",
    "NoiseSource",
    "NotFiniteError",
    "Plan",
    "Schedule",
    "Seam",
    "Snapshot",
    "Step",
    "block_noise",
    "film_noise",
    "generate",
    "unipc",
]
