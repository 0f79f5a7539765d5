"""NVFP4 by Triton: one kernel for the largest magnitude, one that quantises, one that reads back.

No instruction of a single architecture, so it runs wherever Triton does. The kernels work on a batch of matrices: the
slots of a key and value memory are matrices too. They are launched without contraction of a · b + c, and divide truly:
the codes are those of the eager twin, but that a squared error, summed in another order, may settle a near tie of the
4-over-6 rules the other way.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from ..nvfp4_format import BLOCK, MIN_AMAX, NVFP4, check_packed, denominator_of, padded_shape
from .nvfp4_kernels import dequantize, find_amax, quantize

_ROWS = 16
_COLUMNS = 256
"""What one program works on."""


def quantize_nvfp4(
    x: Tensor, rule: str = "mse", *, tile: bool = False, swizzled: bool = True, high_first: bool = False
) -> NVFP4:
    """A matrix → NVFP4, with one scale for each 16 values of a row.

    x `[M, K]` of any float dtype and strides. Swizzled, rows are padded to 128 and columns to 64 with zeros; flat, only
    columns to 16. `tile` shares a scale among 16×16 values. `high_first` puts even columns in the high nibble. A matrix
    whose largest magnitude is below 2^-100 becomes zeros. Raises ValueError for an unknown rule.
    """
    height, width = padded_shape(x.shape[0], x.shape[1], swizzled)
    values = torch.empty(1, height, width // 2, dtype=torch.uint8, device=x.device)
    scales = torch.empty(1, height, width // BLOCK, dtype=torch.float8_e4m3fn, device=x.device)
    packed = NVFP4(values, scales, torch.empty(1, dtype=torch.float32, device=x.device), denominator_of(rule))
    quantize_batch(x[None], packed, rule, tile=tile, swizzled=swizzled, high_first=high_first)
    scale = packed.scales.view(-1) if swizzled else packed.scales[0]
    return packed._replace(values=packed.values[0], scales=scale, amax=packed.amax[0])


def dequantize_nvfp4(
    packed: NVFP4,
    shape: tuple[int, int],
    dtype: torch.dtype,
    *,
    swizzled: bool = True,
    high_first: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """NVFP4 → the matrix `[M, K]` of `shape`, rounded to `dtype` once, from float32.

    `swizzled` and `high_first` as it was quantised. `out` `[M, K]` takes the result and is returned; its dtype counts.
    Raises ValueError where codes or scales do not cover `shape`.
    """
    result = torch.empty(shape, dtype=dtype, device=packed.values.device) if out is None else out
    check_packed(packed, shape, swizzled)
    values, scales, amax, denominator = packed
    batch = NVFP4(values.contiguous()[None, None], scales.contiguous()[None, None], amax.view(1, 1), denominator)
    dequantize_batch(batch, result[None, None], [0], swizzled=swizzled, high_first=high_first)
    return result


def quantize_batch(
    x: Tensor, packed: NVFP4, rule: str, *, tile: bool = False, swizzled: bool = False, high_first: bool = False
) -> None:
    """x `[B, M, K]` of any strides into values `[B, R, W / 2]`, scales `[B, R, W / 16]` and amax `[B]`.

    Each element of the batch is dense, but they may lie anywhere: views of slots. Swizzled, the scales of an element
    are written in their 128×4 order whatever their shape says.
    """
    batch, rows, columns = x.shape
    height, width = packed.values.shape[1], 2 * packed.values.shape[2]
    bits = packed.amax.view(torch.int32).zero_()
    _launch(find_amax, x.shape, x, bits, rows, columns, *x.stride(), bits.stride(0))
    _launch(
        *(quantize, (batch, height, width), x, packed.values, packed.scales.view(torch.uint8), packed.amax),
        *(rows, columns, height, width, *x.stride()),
        *(packed.values.stride(0), packed.scales.stride(0), packed.amax.stride(0)),
        *(rule, packed.denominator, MIN_AMAX, BLOCK if tile else 1, swizzled, high_first),
    )


def dequantize_batch(
    packed: NVFP4, out: Tensor, slots: Sequence[int], *, swizzled: bool = False, high_first: bool = False
) -> None:
    """The slots s of values `[B, S, R, W / 2]`, scales `[B, S, …]` and amax `[B, S]` into out `[B, S, M, K]`.

    Each slot's values and scales are dense; out has any strides. One launch, in which programs of other slots end at
    once. Raises ValueError for more than 63 slots, which a 64-bit argument cannot name.
    """
    batch, count, rows, columns = out.shape
    if count > 63:
        raise ValueError(f"{count} NVFP4 slots are more than the 63 that one launch can choose from: use larger blocks")
    slot_mask = sum(1 << slot for slot in set(slots))
    _launch(
        *(dequantize, (batch * count, rows, columns)),
        *(packed.values, packed.scales.view(torch.uint8), packed.amax, out, slot_mask),
        *(rows, columns, 2 * packed.values.shape[3], count),
        *(*packed.values.stride()[:2], *packed.scales.stride()[:2], *packed.amax.stride(), *out.stride()),
        *(packed.denominator, swizzled, high_first),
    )


def _launch(kernel: JITFunction[Any], shape: Sequence[int], x: Tensor, *rest: Tensor | float | str | bool) -> None:
    """Runs a kernel on x's device, over matrices `[B, M, K]` of which each program takes a part."""
    batch, rows, columns = shape
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(columns, _COLUMNS), batch)
    with torch.cuda.device_of(x):
        kernel[grid](x, *rest, ROWS=_ROWS, COLUMNS=_COLUMNS, enable_fp_fusion=False)
