"""Arguments for the self-test of every op: few tokens at the widths of the 5B model, the same in each call.

A kernel is compiled for the width of a row, for the number types and for what is a multiple of 16, so that a test of
these arguments compiles what the model will launch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import eager

Sample = Callable[[torch.device], tuple[Any, ...]]
EPS = 1e-6
TOKENS, WIDTH, HEADS, FFN = 16, 3072, 24, 14336
"""Tokens of a sample, and sizes of the 5B model. A row lies in a tile of the next power of two: 4096 or 16384."""


def wave(device: torch.device, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Numbers in [−2, 2] of the given shape, without a random generator, whose state belongs to the user."""
    count = torch.Size(shape).numel()
    return (2 * torch.sin(torch.arange(count, device=device) * 0.7)).view(shape).to(dtype)


def angles(device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, `[1, 16, 64]` float32 each."""
    angle = wave(device, 1, TOKENS, 64, dtype=torch.float32)
    return angle.cos(), angle.sin()


def slots(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Values, scales and amax of four NVFP4 slots of 16 tokens, 24 heads and 128 channels, filled with zeros."""
    values = torch.zeros(1, 4, TOKENS * WIDTH // 2, dtype=torch.uint8, device=device)
    scales = torch.zeros(1, 4, TOKENS * WIDTH // 16, dtype=torch.float8_e4m3fn, device=device)
    return values, scales, torch.zeros(1, 4, device=device)


def filled_slots(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`slots` with a block in the second one."""
    store = slots(device)
    eager.append_nvfp4(heads(device), *store, 1)
    return store


def fp8_slots(device: torch.device) -> tuple[Tensor, Tensor]:
    """Codes and scales of four FP8 slots."""
    codes, scales = eager.quantize_fp8_rows(wave(device, 4 * TOKENS * HEADS, WIDTH // HEADS))
    return codes.view(1, 4, TOKENS, HEADS, -1), scales.view(1, 4, TOKENS, HEADS, 1)


def q2_slots(device: torch.device) -> tuple[Tensor, ...]:
    """Codes, scales, indices, centroids, channels and steps of four q2 slots, with four stages of 16 centroids."""
    residual = wave(device, 4, TOKENS, HEADS, WIDTH // HEADS, dtype=torch.float32)
    codes, scales = eager.quantize_q2(residual, torch.ones_like(residual[:, :1]))
    indices = torch.arange(4 * TOKENS * 2 * HEADS, device=device).remainder(251).to(torch.uint8)
    centroids = (50 * wave(device, 1, 4, 64, HEADS, WIDTH // HEADS, dtype=torch.float32)).to(torch.int8)
    channels = wave(device, 1, 4, 1, HEADS, WIDTH // HEADS, dtype=torch.float32).abs().to(torch.float8_e4m3fn)
    steps = wave(device, 1, 4, 4, HEADS, 1, dtype=torch.float32).abs()
    return codes[None], scales[None], indices.view(1, 4, 2 * TOKENS, HEADS, 1), centroids, channels, steps


def scratch(device: torch.device) -> Tensor:
    """Zeros for the tokens of four slots."""
    return torch.zeros(1, 4 * TOKENS, HEADS, WIDTH // HEADS, dtype=torch.bfloat16, device=device)


def heads(device: torch.device) -> Tensor:
    """Tokens `[1, 16, 24, 128]`."""
    return wave(device, 1, TOKENS, HEADS, WIDTH // HEADS)


def sums(device: torch.device) -> tuple[Tensor, Tensor]:
    """x and y of a residual sum, `[1, 16, 3072]` each."""
    x = wave(device, 1, TOKENS, WIDTH)
    return x, x.flip(1)


def modulation(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Gate, scale and shift of eight frames as the model cuts them, `[1, 8, 3072]` each."""
    return wave(device, 1, 8, 6, WIDTH).unbind(2)[:3]  # pyright: ignore[reportReturnType]


def weights(device: torch.device) -> tuple[Tensor, Tensor]:
    """Weight and bias of a norm."""
    return wave(device, WIDTH), wave(device, WIDTH).flip(0)


SAMPLES: dict[str, Sample] = {
    "rms_norm": lambda d: (wave(d, 1, TOKENS, WIDTH), wave(d, WIDTH), EPS),
    "rms_norm_rope": lambda d: (wave(d, 1, TOKENS, WIDTH), wave(d, WIDTH), *angles(d), HEADS, EPS),
    "rope_rotate": lambda d: (heads(d), *angles(d)),
    "layer_norm_modulate": lambda d: (wave(d, 1, TOKENS, WIDTH), *modulation(d)[1:], EPS),
    "gate_residual": lambda d: (*sums(d), modulation(d)[0]),
    "gate_residual_norm": lambda d: (*sums(d), modulation(d)[0], *weights(d), EPS),
    "gate_residual_modulate": lambda d: (*sums(d), None, *modulation(d)[1:], EPS),
    "gelu_tanh": lambda d: (wave(d, 1, FFN),),
    "quantize_fp8_heads": lambda d: (heads(d),),
    "quantize_fp8_rows": lambda d: (wave(d, TOKENS, WIDTH),),
    "layer_norm_modulate_fp8": lambda d: (wave(d, 1, TOKENS, WIDTH), *modulation(d)[1:], EPS),
    "gate_residual_norm_fp8": lambda d: (*sums(d), modulation(d)[0], *weights(d), EPS),
    "gate_residual_modulate_fp8": lambda d: (*sums(d), None, *modulation(d)[1:], EPS),
    "gelu_tanh_fp8": lambda d: (wave(d, 2, FFN),),
    "quantize_nvfp4": lambda d: (wave(d, 32, 256), "mse"),
    "quantize_nvfp4_stochastic": lambda d: (wave(d, 32, 256), wave(d, 32, 256, dtype=torch.float32).abs() / 2.01),
    "hadamard16": lambda d: (wave(d, 32, 256), wave(d, 16).sign()),
    "dequantize_nvfp4": lambda d: (eager.quantize_nvfp4(wave(d, 128, 256), "mse"), (128, 256), torch.bfloat16),
    "append_nvfp4": lambda d: (heads(d), *slots(d), 1),
    "read_nvfp4": lambda d: (*filled_slots(d), "mse", [1], scratch(d)),
    "read_fp8": lambda d: (*fp8_slots(d), [1, 3], scratch(d)),
    "quantize_q2": lambda d: (heads(d).float(), heads(d)[:, :1].float().abs() + 1),
    "read_q2": lambda d: (*q2_slots(d), [1, 3], scratch(d)),
    "rms_silu_pad": lambda d: (wave(d, 1, 2, 4, 4, 512), wave(d, 512), wave(d, 1, 2, 4, 4, 512)),
    "upsample_nearest": lambda d: (wave(d, 1, 2, 4, 16, 512),),
    "to_uint8": lambda d: (wave(d, 1, 3, 2, 16, 16),),
}
"""Arguments by the name of the op. Ops that write in place get fresh tensors in each call."""
