"""Ops of the transformer, its KV cache, its weights and the VAE. They take tensors and know nothing of video.

| op | formula | shapes |
|---|---|---|
| `rms_norm` | x / rms(x) · weight | x `[..., C]`, weight `[C]` |
| `rms_norm_rope` | rope(rms_norm(x)) by heads, written to a KV slot | x `[B, L, C]` → `[B, L, H, D]` |
| `rope_rotate` | (a, b) → (a cos − b sin, a sin + b cos) | x `[B, L, H, D]`, cos and sin `[B or 1, L, D/2]` |
| `layer_norm_modulate` | layernorm(x) · (1 + scale) + shift | x `[B, L, C]`, scale and shift `[B, F, C]`, F divides L |
| `gate_residual` | x + gate · y | x and y `[B, L, C]`, gate `[B, F, C]`, F divides L |
| `gate_residual_norm` | s = x + gate · y; s, layernorm(s) · weight + bias | weight and bias `[C]` |
| `gate_residual_modulate` | s = x + gate · y; s, layernorm(s) · (1 + scale) + shift | as above |
| `gelu_tanh` | GELU, tanh approximation | any |
| `quantize_fp8_rows` | x / (amax of the row / 448) in E4M3 | x `[M, K]` → `[M, K]`, `[M, 1]` |
| `quantize_fp8_heads` | x / (amax of the head / 448) in E4M3 | x `[B, L, H, D]` → the same, `[B, 1, H, 1]` |
| `gelu_tanh_fp8`, and so of the norms before it | the op, then `quantize_fp8_rows` of its last result | as there |
| `quantize_nvfp4`, `dequantize_nvfp4` | E2M1 in blocks of 16 with E4M3 scales, see `NVFP4` | x `[M, K]` |
| `quantize_nvfp4_stochastic` | rounded up or down at random so that the mean is x | x and uniforms `[M, K]` |
| `hadamard16` | x · diag(signs) H / 4 in groups of 16 | x `[M, K]`, signs `[16]` |
| `append_nvfp4`, `read_nvfp4` | the same for slots of the KV cache, in place | x `[B, T, H, D]` |
| `read_fp8` | E4M3 numbers of slots times their scales, in place | as `read_nvfp4` |
| `quantize_q2` | x / spread to ± ½ and ± 1½ scales, a scale for 32 channels | x `[B, T, H, D]`, spread `[B, 1, H, D]` |
| `read_q2` | centroids and 2-bit residuals of slots, see `q2_format`, in place | as `read_nvfp4` |
| `rms_silu_pad` | silu(x / norm(x) · √C · gamma) after two past frames | x `[B, T, H, W, C]` |
| `upsample_nearest` | nearest-neighbour upsampling by 2 | `[B, T, H, W, C]` → `[B, T, 2H, 2W, C]` |
| `to_uint8` | [−1, 1] to 0 … 255, clamped | video `[1, 3, T, H, W]` → `[T, H, W, 3]` |

Each op has an implementation in plain PyTorch (`eager`, the reference) and one in Triton, with the same name and
signature; see `registry`.
"""

from typing import Any

import torch

from . import eager
from .nvfp4_format import NVFP4, RULES, swap_nibbles, unswizzle_scales
from .registry import Limits, Op, describe, use_backend

# One Triton program holds a whole row in its registers.
ROW = Limits(width=16384)
ANY = Limits()
PACKED = Limits(dtypes=(torch.uint8,))

rms_norm = Op(eager.rms_norm, ROW)
rms_norm_rope = Op(eager.rms_norm_rope, ROW)
rope_rotate = Op(eager.rope_rotate, ANY)
layer_norm_modulate = Op(eager.layer_norm_modulate, ROW)
gate_residual = Op(eager.gate_residual, ROW)
gate_residual_norm = Op(eager.gate_residual_norm, ROW)
gate_residual_modulate = Op(eager.gate_residual_modulate, ROW)
gelu_tanh = Op(eager.gelu_tanh, ANY)
quantize_fp8_heads = Op(eager.quantize_fp8_heads, Limits(width=1024))
quantize_fp8_rows = Op(eager.quantize_fp8_rows, ROW)
layer_norm_modulate_fp8 = Op(eager.layer_norm_modulate_fp8, ROW)
gate_residual_norm_fp8 = Op(eager.gate_residual_norm_fp8, ROW)
gate_residual_modulate_fp8 = Op(eager.gate_residual_modulate_fp8, ROW)
gelu_tanh_fp8 = Op(eager.gelu_tanh_fp8, ROW)
quantize_nvfp4 = Op(eager.quantize_nvfp4, ANY)
quantize_nvfp4_stochastic = Op(eager.quantize_nvfp4_stochastic, ANY)
dequantize_nvfp4 = Op(eager.dequantize_nvfp4, PACKED)
hadamard16 = Op(eager.hadamard16, ANY)
append_nvfp4 = Op(eager.append_nvfp4, ANY)
read_nvfp4 = Op(eager.read_nvfp4, PACKED)
read_fp8 = Op(eager.read_fp8, Limits(dtypes=(torch.float8_e4m3fn,), width=1024))
quantize_q2 = Op(eager.quantize_q2, Limits(dtypes=(torch.float32,), width=1024))
read_q2 = Op(eager.read_q2, Limits(dtypes=(torch.uint8,), width=256))
rms_silu_pad = Op(eager.rms_silu_pad, Limits(width=4096))
upsample_nearest = Op(eager.upsample_nearest, ANY)
to_uint8 = Op(eager.to_uint8, ANY)

OPS: tuple[Op[..., Any], ...] = tuple(value for value in globals().values() if isinstance(value, Op))
"""All ops, in the order above."""

__all__ = [
    "NVFP4",
    "OPS",
    "RULES",
    "append_nvfp4",
    "dequantize_nvfp4",
    "describe",
    "gate_residual",
    "gate_residual_modulate",
    "gate_residual_modulate_fp8",
    "gate_residual_norm",
    "gate_residual_norm_fp8",
    "gelu_tanh",
    "gelu_tanh_fp8",
    "hadamard16",
    "layer_norm_modulate",
    "layer_norm_modulate_fp8",
    "quantize_fp8_heads",
    "quantize_fp8_rows",
    "quantize_nvfp4",
    "quantize_nvfp4_stochastic",
    "quantize_q2",
    "read_fp8",
    "read_nvfp4",
    "read_q2",
    "rms_norm",
    "rms_norm_rope",
    "rms_silu_pad",
    "rope_rotate",
    "swap_nibbles",
    "to_uint8",
    "unswizzle_scales",
    "upsample_nearest",
    "use_backend",
]
