"""Activations, computed in float32 and rounded once."""

from torch import Tensor
from torch.nn import functional as F


def gelu_tanh(x: Tensor) -> Tensor:
    """x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), the tanh approximation of GELU (arXiv 1606.08415).

    Any shape and float dtype. Computed in float32 and rounded once.
    """
    return F.gelu(x, approximate="tanh")
