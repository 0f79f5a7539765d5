"""Products of NVFP4 matrices on the FP4 units of Blackwell GPUs, through PyTorch's scaled product.

There was no such GPU to test this on: a self-test compares its result with that of the dequantised matrices before its
first use on a device, and if it differs or fails, products are those of the dequantised matrices.
"""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels import NVFP4, dequantize_nvfp4, quantize_nvfp4

log = logging.getLogger(__name__)
# Largest relative error in the self-test: bf16 rounds the result to 2^-9, and a wrong layout gives errors near 1.
TOLERANCE = 1e-2


def has_fp4_units(device: torch.device) -> bool:
    """Whether products of NVFP4 matrices run on FP4 units of a device."""
    return device.type == "cuda" and _passes_self_test(device)


def multiply_fp4(left: NVFP4, right: NVFP4) -> Tensor:
    """left `[M, K]` · rightᵀ, right `[N, K]` → bf16 `[M, N]`, padding included; scales must be swizzled."""
    recipe = [F.ScalingType.BlockWise1x16, F.ScalingType.TensorWise]
    swizzle = [F.SwizzleType.SWIZZLE_32_4_4, F.SwizzleType.NO_SWIZZLE]
    scales = [[part.scales, (part.amax / part.denominator).reshape(1)] for part in (left, right)]
    values = [part.values.view(torch.float4_e2m1fn_x2) for part in (left, right)]
    return F.scaled_mm(
        values[0], values[1].t(), scales[0], recipe, scales[1], recipe, swizzle, swizzle, output_dtype=torch.bfloat16
    )


@lru_cache(maxsize=16)
def _passes_self_test(device: torch.device) -> bool:
    """Whether the scaled product agrees with the product of the dequantised matrices; a failure is logged once."""
    if torch.cuda.get_device_capability(device)[0] < 10 or not hasattr(F, "scaled_mm"):
        return False
    numbers = torch.arange(128 * 128, device=device, dtype=torch.float32).view(128, 128)
    left, right = ((step * numbers).sin().bfloat16() for step in (0.7, 0.3))
    try:
        packed = quantize_nvfp4(left), quantize_nvfp4(right)
        a, b = (dequantize_nvfp4(part, (128, 128), torch.float32) for part in packed)
        expected, result = (a @ b.t()), multiply_fp4(*packed).float()
        error = float((result - expected).norm() / expected.norm())
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as fault:
        log.warning("FP4 units of %s are not used: %s: %s", device, type(fault).__name__, fault)
        return False
    if not error <= TOLERANCE:
        log.warning("FP4 units of %s are not used: their product differs by %.1e", device, error)
        return False
    return True
