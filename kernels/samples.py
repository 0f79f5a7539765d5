"""Small made-up inputs on which an implementation of an op proves itself before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Run = Callable[..., Any]
EPS = 1e-6


def wave(device: torch.device, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Numbers in [-2, 2] without a random generator, whose state is the user's."""
    count = torch.Size(shape).numel()
    return (2 * torch.sin(torch.arange(count, device=device) * 0.7)).view(shape).to(dtype)


def rms_norm(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    return (run(wave(device, 2, 5, 192), wave(device, 192), EPS),)


def rms_norm_rope(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    angles = wave(device, 1, 5, 16, dtype=torch.float32)
    return (run(wave(device, 2, 5, 192), wave(device, 192), angles.cos(), angles.sin(), 6, EPS),)


def rope_rotate(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    angles = wave(device, 1, 5, 16, dtype=torch.float32)
    return (run(wave(device, 2, 5, 6, 32), angles.cos(), angles.sin()),)


def layer_norm_modulate(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    return (run(wave(device, 2, 6, 192), wave(device, 2, 3, 192), wave(device, 2, 3, 192), EPS),)


def gate_residual(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    return (run(wave(device, 2, 6, 192), wave(device, 2, 6, 192), wave(device, 2, 3, 192)),)


def gate_residual_norm(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    x, gate = wave(device, 2, 6, 192), wave(device, 2, 3, 192)
    return run(x, x.flip(1), gate, wave(device, 192), wave(device, 192), EPS)


def gate_residual_modulate(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    x, scale = wave(device, 2, 6, 192), wave(device, 2, 3, 192)
    return run(x, x.flip(1), None, scale, scale.flip(2), EPS)


def gelu_tanh(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    return (run(wave(device, 3, 100)),)


def quantize_fp8_rows(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    values, scales = run(wave(device, 5, 192))
    return values.float() * scales, scales


def quantize_nvfp4(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    packed = run(wave(device, 20, 128), "mse")
    return packed.values, packed.scales.float(), packed.amax


def dequantize_nvfp4(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    from .eager import quantize_nvfp4

    return (run(quantize_nvfp4(wave(device, 20, 128), "mse"), (20, 128), torch.bfloat16),)


def append_nvfp4(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    values, scales, amax = _store(device)
    run(wave(device, 1, 8, 2, 32), values, scales, amax, 1)
    return values, scales.float(), amax


def read_nvfp4(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    from .eager import append_nvfp4

    store = _store(device)
    append_nvfp4(wave(device, 1, 8, 2, 32), *store, 1)
    out = torch.zeros(1, 16, 2, 32, dtype=torch.bfloat16, device=device)
    run(*store, "mse", [1], out)
    return (out,)


def rms_silu_pad(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    return (run(wave(device, 1, 2, 3, 5, 24), wave(device, 24), wave(device, 1, 2, 3, 5, 24)),)


def upsample_nearest(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    return (run(wave(device, 1, 2, 3, 5, 24)),)


def to_uint8(run: Run, device: torch.device) -> tuple[Tensor, ...]:
    return (run(wave(device, 1, 3, 2, 5, 7)),)


def _store(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.zeros(1, 2, 8 * 2 * 32 // 2, dtype=torch.uint8, device=device)
    scales = torch.zeros(1, 2, 8 * 2 * 32 // 16, dtype=torch.float8_e4m3fn, device=device)
    return values, scales, torch.zeros(1, 2, device=device)
