"""Residual with a gate per run of tokens."""

from torch import Tensor


def gate_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate · y, with one gate for each of F runs of tokens.

    x and y `[B, L, C]`, gate `[B, F, C]` with L a multiple of F; returns `[B, L, C]` in x's dtype. The gated value is
    rounded to x's dtype before the sum, which is what the models were trained with.
    """
    batch, length, channels = x.shape
    gated = y.view(batch, gate.shape[1], -1, channels) * gate.to(x.dtype).unsqueeze(2)
    return x + gated.view(batch, length, channels)
