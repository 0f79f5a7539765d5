"""The Hadamard transform of groups of 16 values, in plain PyTorch."""

import torch
from torch import Tensor


def hadamard16(x: Tensor, signs: Tensor) -> Tensor:
    """Multiplies each group of 16 values of a row by diag(signs) H / 4, where H is Sylvester's matrix.

    x `[M, K]`, any float dtype; K must be a multiple of 16. signs: `[16]`, +1 or −1. The sums are float32, rounded to
    x's dtype. The matrix is orthogonal, so that a product over K of two transformed matrices stays what it was. Raises
    ValueError for other widths.
    """
    if x.shape[-1] % 16:
        raise ValueError(f"rows of {x.shape[-1]} values are not whole groups of 16; pad them with zeros")
    groups = x.float().unflatten(-1, (-1, 16)) * signs
    for stride in (1, 2, 4, 8):
        first, second = groups.unflatten(-1, (-1, 2, stride)).unbind(-2)
        groups = torch.stack((first + second, first - second), dim=-2).flatten(-3)
    return (groups / 4).flatten(-2).to(x.dtype)
