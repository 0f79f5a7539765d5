"""The ops in plain PyTorch: the reference for other backends, and the fallback."""

from .activation import gelu_tanh
from .fp8 import (
    gate_residual_modulate_fp8,
    gate_residual_norm_fp8,
    gelu_tanh_fp8,
    layer_norm_modulate_fp8,
    quantize_fp8_heads,
    quantize_fp8_rows,
)
from .gate import gate_residual, gate_residual_modulate, gate_residual_norm
from .hadamard import hadamard16
from .kv import append_nvfp4, read_fp8, read_nvfp4
from .norm import layer_norm_modulate, rms_norm, rms_norm_rope
from .nvfp4 import dequantize_nvfp4, quantize_nvfp4, quantize_nvfp4_stochastic
from .q2 import quantize_q2, read_q2
from .rope import rope_rotate
from .vae import rms_silu_pad, to_uint8, upsample_nearest

__all__ = [
    "append_nvfp4",
    "dequantize_nvfp4",
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
    "to_uint8",
    "upsample_nearest",
]
