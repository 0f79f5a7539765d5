"""Several processes that work on one film or one training step: the mesh, the exchange of heads, and gathers."""

from .exchange import all_gather, all_gather_shares, all_max, all_sum, heads_to_tokens, scatter_parts, tokens_to_heads
from .mesh import Mesh, make_mesh
from .ranks import ALONE, SIZES, Ranks, check_size

__all__ = [
    "ALONE",
    "SIZES",
    "Mesh",
    "Ranks",
    "all_gather",
    "all_gather_shares",
    "all_max",
    "all_sum",
    "check_size",
    "heads_to_tokens",
    "make_mesh",
    "scatter_parts",
    "tokens_to_heads",
]
