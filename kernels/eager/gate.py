"""Residual with a gate per run of tokens."""

from torch import Tensor


def gate_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate · y, with one gate for each of F runs of tokens.

    x and y `[B, L, C]`, gate `[B, F, C]` with L a multiple of F; returns `[B, L, C]` in x's dtype, computed in float32
    and rounded once.
    """
    batch, length, channels = x.shape
    gated = y.float().view(batch, gate.shape[1], -1, channels) * gate.float().unsqueeze(2)
    return (x.float() + gated.view(batch, length, channels)).to(x.dtype)
