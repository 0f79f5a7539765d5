"""Arguments for each op of `kernels`, by name, for `ops.py` and `kernel_table.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import float_cases, fp8_cases, nvfp4_cases, q2_cases
from .op_case import OpCase, Size

CASES: dict[str, Callable[[Size], OpCase]] = {
    "rms_norm": float_cases.rms_norm,
    "rms_norm_rope": float_cases.rms_norm_rope,
    "rope_rotate": float_cases.rope_rotate,
    "layer_norm_modulate": float_cases.layer_norm_modulate,
    "gate_residual": float_cases.gate_residual,
    "gate_residual_norm": float_cases.gate_residual_norm,
    "gate_residual_modulate": float_cases.gate_residual_modulate,
    "gelu_tanh": float_cases.gelu_tanh,
    "quantize_fp8_rows": fp8_cases.quantize_fp8_rows,
    "quantize_fp8_rows 3072": partial(fp8_cases.quantize_fp8_rows, width=3072),
    "quantize_fp8_heads": fp8_cases.quantize_fp8_heads,
    "layer_norm_modulate_fp8": fp8_cases.layer_norm_modulate_fp8,
    "gate_residual_norm_fp8": fp8_cases.gate_residual_norm_fp8,
    "gate_residual_modulate_fp8": fp8_cases.gate_residual_modulate_fp8,
    "gelu_tanh_fp8": fp8_cases.gelu_tanh_fp8,
    "quantize_nvfp4 static_6": partial(nvfp4_cases.quantize_nvfp4, rule="static_6"),
    "quantize_nvfp4 mse": partial(nvfp4_cases.quantize_nvfp4, rule="mse"),
    "quantize_nvfp4_stochastic": nvfp4_cases.quantize_nvfp4_stochastic,
    "hadamard16": float_cases.hadamard16,
    "dequantize_nvfp4": nvfp4_cases.dequantize_nvfp4,
    "append_nvfp4": nvfp4_cases.append_nvfp4,
    "read_nvfp4": nvfp4_cases.read_nvfp4,
    "read_nvfp4 centred": partial(nvfp4_cases.read_nvfp4, centred=True),
    "read_fp8": fp8_cases.read_fp8,
    "quantize_q2": q2_cases.quantize_q2,
    "read_q2": q2_cases.read_q2,
    "rms_silu_pad": float_cases.rms_silu_pad,
    "upsample_nearest": float_cases.upsample_nearest,
    "to_uint8": float_cases.to_uint8,
}
