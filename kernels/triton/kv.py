"""NVFP4 keys or values of one layer by Triton: two kernels to write a block, one to read any number of them back.

Flat scales, even column in the low nibble. Everything is written in place and nothing waits for the device.
"""

from collections.abc import Sequence

from torch import Tensor

from ..nvfp4_format import NVFP4, denominator_of
from .nvfp4 import dequantize_batch, quantize_batch


def append_nvfp4(x: Tensor, values: Tensor, scales: Tensor, amax: Tensor, slot: int, rule: str = "mse") -> None:
    """Quantises a block of tokens into a slot, each batch element as one matrix `[T · H, D]` with its own maximum.

    x `[B, T, H, D]` with D a multiple of 16; values `[B, S, T · H · D / 2]` uint8, scales `[B, S, T · H · D / 16]`
    float8_e4m3fn, amax `[B, S]` float32. Other slots are left alone. Raises ValueError for an unknown rule.
    """
    matrices = x.flatten(2)
    rows = matrices.shape[1]
    packed = NVFP4(
        values[:, slot].unflatten(1, (rows, -1)),
        scales[:, slot].unflatten(1, (rows, -1)),
        amax[:, slot],
        denominator_of(rule),
    )
    quantize_batch(matrices, packed, rule)


def read_nvfp4(values: Tensor, scales: Tensor, amax: Tensor, rule: str, slots: Sequence[int], out: Tensor) -> None:
    """Dequantises slots into their tokens of `out`, rounded once to its dtype; the tokens of other slots stay.

    values, scales, amax and rule as `append_nvfp4` had them; out `[B, S · T, H, D]`, slot s at tokens s · T to
    (s + 1) · T. Raises ValueError for an unknown rule.
    """
    _, tokens, heads, channels = out.shape
    slot_count = values.shape[1]
    rows = tokens // slot_count
    matrices = out.view(-1, slot_count, rows, heads * channels)
    packed = NVFP4(values.unflatten(2, (rows, -1)), scales.unflatten(2, (rows, -1)), amax, denominator_of(rule))
    dequantize_batch(packed, matrices, slots)
