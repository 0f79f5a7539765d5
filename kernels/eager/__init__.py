"""The ops in plain PyTorch: the reference for other backends, and the fallback."""

from .activation import gelu_tanh
from .fp8 import quantize_fp8_rows
from .gate import gate_residual, gate_residual_modulate, gate_residual_norm
from .kv import append_nvfp4, read_nvfp4
from .norm import layer_norm_modulate, rms_norm, rms_norm_rope
from .nvfp4 import dequantize_nvfp4, quantize_nvfp4
from .rope import rope_rotate
from .vae import rms_silu_pad, to_uint8, upsample_nearest

__all__ = [
    "append_nvfp4",
    "dequantize_nvfp4",
    "gate_residual",
    "gate_residual_modulate",
    "gate_residual_norm",
    "gelu_tanh",
    "layer_norm_modulate",
    "quantize_fp8_rows",
    "quantize_nvfp4",
    "read_nvfp4",
    "rms_norm",
    "rms_norm_rope",
    "rms_silu_pad",
    "rope_rotate",
    "to_uint8",
    "upsample_nearest",
]
