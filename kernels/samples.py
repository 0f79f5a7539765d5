"""Arguments for the self-test of every op: small tensors on a device, the same in each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import eager

Sample = Callable[[torch.device], tuple[Any, ...]]
EPS = 1e-6


def wave(device: torch.device, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Numbers in [−2, 2] of the given shape, without a random generator, whose state belongs to the user."""
    count = torch.Size(shape).numel()
    return (2 * torch.sin(torch.arange(count, device=device) * 0.7)).view(shape).to(dtype)


def angles(device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, `[1, 5, 16]` float32 each."""
    angle = wave(device, 1, 5, 16, dtype=torch.float32)
    return angle.cos(), angle.sin()


def slots(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Values, scales and amax of two NVFP4 slots of 8 tokens, 2 heads and 32 channels, filled with zeros."""
    values = torch.zeros(1, 2, 8 * 2 * 32 // 2, dtype=torch.uint8, device=device)
    scales = torch.zeros(1, 2, 8 * 2 * 32 // 16, dtype=torch.float8_e4m3fn, device=device)
    return values, scales, torch.zeros(1, 2, device=device)


def filled_slots(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`slots` with a block in the second one."""
    store = slots(device)
    eager.append_nvfp4(wave(device, 1, 8, 2, 32), *store, 1)
    return store


def sums(d: torch.device) -> tuple[Tensor, Tensor]:
    """x and y of a residual sum, `[2, 6, 192]` each."""
    x = wave(d, 2, 6, 192)
    return x, x.flip(1)


SAMPLES: dict[str, Sample] = {
    "rms_norm": lambda d: (wave(d, 2, 5, 192), wave(d, 192), EPS),
    "rms_norm_rope": lambda d: (wave(d, 2, 5, 192), wave(d, 192), *angles(d), 6, EPS),
    "rope_rotate": lambda d: (wave(d, 2, 5, 6, 32), *angles(d)),
    "layer_norm_modulate": lambda d: (wave(d, 2, 6, 192), wave(d, 2, 3, 192), wave(d, 2, 3, 192), EPS),
    "gate_residual": lambda d: (*sums(d), wave(d, 2, 3, 192)),
    "gate_residual_norm": lambda d: (*sums(d), wave(d, 2, 3, 192), wave(d, 192), wave(d, 192), EPS),
    "gate_residual_modulate": lambda d: (*sums(d), None, wave(d, 2, 3, 192), wave(d, 2, 3, 192).flip(2), EPS),
    "gelu_tanh": lambda d: (wave(d, 3, 100),),
    "quantize_fp8_rows": lambda d: (wave(d, 5, 192),),
    "quantize_nvfp4": lambda d: (wave(d, 20, 128), "mse"),
    "dequantize_nvfp4": lambda d: (eager.quantize_nvfp4(wave(d, 20, 128), "mse"), (20, 128), torch.bfloat16),
    "append_nvfp4": lambda d: (wave(d, 1, 8, 2, 32), *slots(d), 1),
    "read_nvfp4": lambda d: (*filled_slots(d), "mse", [1], torch.zeros(1, 16, 2, 32, dtype=torch.bfloat16, device=d)),
    "rms_silu_pad": lambda d: (wave(d, 1, 2, 3, 5, 24), wave(d, 24), wave(d, 1, 2, 3, 5, 24)),
    "upsample_nearest": lambda d: (wave(d, 1, 2, 3, 5, 24),),
    "to_uint8": lambda d: (wave(d, 1, 3, 2, 5, 7),),
}
"""Arguments by the name of the op. Ops that write in place get fresh tensors in each call."""
