"""Each operation against its formula, written out."""

from __future__ import annotations

import math

import pytest
import torch
from longlive.kernels import gate_residual, layer_norm_modulate, rms_norm, rope_rotate

DTYPES = [torch.float32, torch.bfloat16]


def close(value: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 1e-5 if value.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(value.double(), expected.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_runs_over_the_whole_width(dtype: torch.dtype) -> None:
    """RMSNorm divides by the root mean square of the whole width, in the dtype of its input."""
    x, weight = torch.randn(2, 5, 48).to(dtype) * 7, torch.randn(48).to(dtype)
    y = rms_norm(x, weight, 1e-6)
    assert y.dtype == dtype
    close(y, x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_run_of_tokens_has_its_own_modulation(dtype: torch.dtype) -> None:
    """LayerNorm modulation has a scale and a shift for each run of tokens."""
    x = torch.randn(2, 6, 8).to(dtype)
    scale, shift = torch.randn(2, 3, 8).to(dtype), torch.randn(2, 3, 8).to(dtype)
    y = layer_norm_modulate(x, scale, shift, 1e-6)
    assert y.dtype == dtype
    for run in range(3):
        rows = x[:, 2 * run : 2 * run + 2].double()
        normed = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        expected = normed * (1 + scale[:, run : run + 1].double()) + shift[:, run : run + 1].double()
        close(y[:, 2 * run : 2 * run + 2], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_run_of_tokens_has_its_own_gate(dtype: torch.dtype) -> None:
    """The gated residual has a gate for each run of tokens."""
    x, y, gate = torch.randn(2, 6, 8).to(dtype), torch.randn(2, 6, 8).to(dtype), torch.randn(2, 3, 8).to(dtype)
    out = gate_residual(x, y, gate)
    assert out.dtype == dtype
    close(out, x.double() + gate.double().repeat_interleave(2, dim=1) * y.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_rope_turns_adjacent_channels(dtype: torch.dtype) -> None:
    """RoPE rotates each pair of adjacent channels by its angle."""
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4).to(dtype)
    angles = torch.tensor([math.pi / 2, math.pi]).view(1, 1, 2)
    y = rope_rotate(x, angles.cos(), angles.sin())
    assert y.dtype == dtype
    close(y, torch.tensor([0.0, 1.0, 0.0, -2.0]).view(1, 1, 1, 4))


def test_every_operation_is_differentiable() -> None:
    """Norm, modulation, gated residual and RoPE pass finite gradients to their input."""
    x = torch.randn(1, 2, 8, dtype=torch.float32, requires_grad=True)
    gate, weight = torch.randn(1, 2, 8), torch.randn(8)
    angle = torch.randn(1, 2, 2)
    y = gate_residual(x, layer_norm_modulate(rms_norm(x, weight, 1e-6), gate, gate, 1e-6), gate)
    rope_rotate(y.view(1, 2, 2, 4), angle.cos(), angle.sin()).square().sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all()) and float(x.grad.abs().sum()) > 0
