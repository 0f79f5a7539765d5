"""Sampling: from a block plan to latents, with noise, the UniPC schedule and snapshots."""

from .generate import generate
from .generation import Generation, KnownLatents, Step
from .led import LedModel, RankModel
from .noise import MAX_SEED, NoiseSource, batch_noise, block_noise
from .remote_model import RemoteModel, RemoteSplitModel
from .seam import SEAMS, Seam
from .snapshot import Snapshot
from .split import SplitModel

__all__ = [
    "MAX_SEED",
    "SEAMS",
    "Generation",
    "KnownLatents",
    "LedModel",
    "NoiseSource",
    "RankModel",
    "RemoteModel",
    "RemoteSplitModel",
    "Seam",
    "Snapshot",
    "SplitModel",
    "Step",
    "batch_noise",
    "block_noise",
    "generate",
]
