"""NVFP4 in Triton: one kernel for the amax, one to quantise, to nearest or stochastically, and one to dequantise.

The kernels use no instructions of a single architecture. They work on a batch of matrices, such as the slots of the KV
cache. They are launched without contraction of a · b + c and divide exactly, so their codes are those of the eager op,
with one exception: errors are summed in another order, so a near tie between the scales of a 4-over-6 rule may be
decided differently.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from ..nvfp4_format import BLOCK, MIN_AMAX, NVFP4, check_packed, check_uniforms, denominator_of, padded_shape
from .nvfp4_kernels import dequantize, find_amax, quantize

_ROWS = 16
_COLUMNS = 256
"""Rows and columns of the part of a matrix that one program handles."""


def quantize_nvfp4(
    x: Tensor, rule: str = "mse", *, tile: bool = False, swizzled: bool = True, high_first: bool = False
) -> NVFP4:
    """Quantises a matrix to NVFP4, with one scale for each 16 values of a row.

    x: `[M, K]`, any float dtype and strides. tile: share a scale among 16×16 values. swizzled: scales in the 128×4
    layout, with zero padding to multiples of 128 rows and 64 columns; otherwise only columns are padded, to a multiple
    of 16. high_first: even columns in the high nibble. A matrix with an amax below 2^-100 becomes zeros. Raises
    ValueError for an unknown rule.
    """
    packed = _empty(x, rule, swizzled)
    quantize_batch(x[None], packed, rule, tile=tile, swizzled=swizzled, high_first=high_first)
    return _single(packed, swizzled)


def quantize_nvfp4_stochastic(
    x: Tensor, uniforms: Tensor, rule: str = "mse", *, unbiased: bool = True, swizzled: bool = True
) -> NVFP4:
    """Quantises a matrix to NVFP4 with stochastic rounding: up or down, with a probability that keeps the mean.

    x: `[M, K]`, any float dtype and strides. uniforms: random numbers in [0, 1), float32 `[M, K]`, or `[2, M, K]` for a
    4-over-6 rule that is not unbiased. Other arguments and errors: as in the eager op.
    """
    packed = _empty(x, rule, swizzled)
    check_uniforms(uniforms, x, rule, unbiased)
    rounding = "unbiased" if unbiased else "biased"
    quantize_batch(x[None], packed, rule, swizzled=swizzled, rounding=rounding, uniforms=uniforms.contiguous())
    return _single(packed, swizzled)


def dequantize_nvfp4(
    packed: NVFP4,
    shape: tuple[int, int],
    dtype: torch.dtype,
    *,
    swizzled: bool = True,
    high_first: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Dequantises NVFP4 to a matrix `[M, K]` of `shape`, in float32 and then rounded to `dtype`.

    swizzled, high_first: as in `quantize_nvfp4`. out: `[M, K]`, gets the result in its own dtype and is returned.
    Raises ValueError if codes or scales do not cover `shape`.
    """
    result = torch.empty(shape, dtype=dtype, device=packed.values.device) if out is None else out
    check_packed(packed, shape, swizzled)
    values, scales, amax, denominator = packed
    batch = NVFP4(values.contiguous()[None, None], scales.contiguous()[None, None], amax.view(1, 1), denominator)
    dequantize_batch(batch, result[None, None], [0], swizzled=swizzled, high_first=high_first)
    return result


def quantize_batch(
    x: Tensor,
    packed: NVFP4,
    rule: str,
    *,
    tile: bool = False,
    swizzled: bool = False,
    high_first: bool = False,
    rounding: str = "nearest",
    uniforms: Tensor | None = None,
    least: Tensor | None = None,
) -> None:
    """Quantises x `[B, M, K]`, of any strides, into values `[B, R, W / 2]`, scales `[B, R, W / 16]` and amax `[B]`.

    Each element of the batch must be contiguous; the stride of the batch is free, as for views of slots. swizzled:
    write the scales of an element in the 128×4 layout, whatever their shape. rounding: "nearest", or "unbiased" and
    "biased" with the `uniforms` of `quantize_nvfp4_stochastic`, for a batch of one. least: float32 `[B]`, amax is not
    below it.
    """
    batch, rows, columns = x.shape
    height, width = packed.values.shape[1], 2 * packed.values.shape[2]
    packed.amax.zero_() if least is None else packed.amax.copy_(least)
    bits = packed.amax.view(torch.int32)
    _launch(find_amax, x.shape, x, bits, rows, columns, *x.stride(), bits.stride(0))
    _launch(
        *(quantize, (batch, height, width), x, packed.values, packed.scales.view(torch.uint8), packed.amax),
        x if uniforms is None else uniforms,
        *(rows, columns, height, width, *x.stride()),
        *(packed.values.stride(0), packed.scales.stride(0), packed.amax.stride(0)),
        *(rule, packed.denominator, MIN_AMAX, BLOCK if tile else 1, swizzled, high_first, rounding),
    )


def dequantize_batch(
    packed: NVFP4,
    out: Tensor,
    slots: Sequence[int],
    *,
    swizzled: bool = False,
    high_first: bool = False,
    mean: Tensor | None = None,
) -> None:
    """Dequantises slots of values `[B, S, R, W / 2]`, scales `[B, S, …]` and amax `[B, S]` into out `[B, S, M, K]`.

    The values and scales of a slot must be contiguous; out may have any strides. There is one launch, and programs of
    other slots return at once. mean: `[B, S, K]`, is added to the rows of a slot after rounding, and the sum is rounded
    again. Raises ValueError for more than 63 slots.
    """
    batch, count, rows, columns = out.shape
    _launch(
        *(dequantize, (batch * count, rows, columns)),
        *(packed.values, packed.scales.view(torch.uint8), packed.amax, out),
        *(None if mean is None else mean.contiguous(), mask_of(slots, count)),
        *(rows, columns, 2 * packed.values.shape[3], count),
        *(*packed.values.stride()[:2], *packed.scales.stride()[:2], *packed.amax.stride(), *out.stride()),
        *(packed.denominator, swizzled, high_first),
    )


def mask_of(slots: Sequence[int], count: int) -> int:
    """A bit for each of `slots`. Raises ValueError for more than 63 slots, which the 64-bit mask cannot hold."""
    if count > 63:
        raise ValueError(
            f"{count} NVFP4 slots exceed the 63 that one launch can select from; use a shorter window or larger blocks"
        )
    return sum(1 << slot for slot in set(slots))


def _empty(x: Tensor, rule: str, swizzled: bool) -> NVFP4:
    """Uninitialised codes, scales and amax of a batch of one matrix. Raises ValueError for an unknown rule."""
    height, width = padded_shape(x.shape[0], x.shape[1], swizzled)
    values = torch.empty(1, height, width // 2, dtype=torch.uint8, device=x.device)
    scales = torch.empty(1, height, width // BLOCK, dtype=torch.float8_e4m3fn, device=x.device)
    return NVFP4(values, scales, torch.empty(1, dtype=torch.float32, device=x.device), denominator_of(rule))


def _single(packed: NVFP4, swizzled: bool) -> NVFP4:
    """The matrix of a batch of one."""
    scales = packed.scales.view(-1) if swizzled else packed.scales[0]
    return packed._replace(values=packed.values[0], scales=scales, amax=packed.amax[0])


def _launch(
    kernel: JITFunction[Any], shape: Sequence[int], x: Tensor, *rest: Tensor | float | str | bool | None
) -> None:
    """Launches a kernel on x's device over matrices `[B, M, K]`, one program for each part of a matrix."""
    batch, rows, columns = shape
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(columns, _COLUMNS), batch)
    with torch.cuda.device_of(x):
        kernel[grid](x, *rest, ROWS=_ROWS, COLUMNS=_COLUMNS, enable_fp_fusion=False)
