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
from .join import device_of, first_failure, joined
from .link import Leader, RankError, follow
from .mesh import Mesh, make_mesh
from .parent import end_with_parent
from .processes import CalledOffError, RankProcesses
from .ranks import ALONE, SIZES, Ranks, Traffic, check_size
from .remote import Calls, Remote

__all__ = [
    "ALONE",
    "SIZES",
    "CalledOffError",
    "Calls",
    "Leader",
    "Mesh",
    "RankError",
    "RankProcesses",
    "Ranks",
    "Remote",
    "Traffic",
    "all_gather",
    "all_gather_for_loss",
    "all_gather_shares",
    "all_max",
    "all_sum",
    "check_size",
    "device_of",
    "end_with_parent",
    "first_failure",
    "follow",
    "heads_to_tokens",
    "joined",
    "make_mesh",
    "scatter_parts",
    "tokens_to_heads",
]
