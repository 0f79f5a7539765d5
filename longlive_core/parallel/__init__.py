"""Processes that work on one film or one training step: mesh, exchange of heads, gathers, and rank 0 that leads."""

from .exchange import (
    all_gather,
    all_gather_for_loss,
    all_gather_shares,
    all_max,
    all_sum,
    heads_to_tokens,
    scatter_parts,
    tokens_to_heads,
)
from .link import Leader, RankError, follow
from .mesh import Mesh, make_mesh
from .ranks import ALONE, SIZES, Ranks, Traffic, check_size

__all__ = [
    "ALONE",
    "SIZES",
    "Leader",
    "Mesh",
    "RankError",
    "Ranks",
    "Traffic",
    "all_gather",
    "all_gather_for_loss",
    "all_gather_shares",
    "all_max",
    "all_sum",
    "check_size",
    "follow",
    "heads_to_tokens",
    "make_mesh",
    "scatter_parts",
    "tokens_to_heads",
]
