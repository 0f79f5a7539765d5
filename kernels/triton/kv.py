"""NVFP4 slots of the KV cache of one layer: two kernels write a block, one kernel reads any number of blocks.

Scales are not swizzled and even columns are in the low nibble. All writes are in place, without synchronisation.
"""

from collections.abc import Sequence

from torch import Tensor

from ..nvfp4_format import NVFP4, denominator_of
from .nvfp4 import dequantize_batch, quantize_batch


def append_nvfp4(x: Tensor, values: Tensor, scales: Tensor, amax: Tensor, slot: int, rule: str = "mse") -> None:
    """Quantises a block of tokens into a slot. Each batch element is one matrix `[T · H, D]` with its own amax.

    x `[B, T, H, D]` with D a multiple of 16; values `[B, S, T · H · D / 2]` uint8, scales `[B, S, T · H · D / 16]`
    float8_e4m3fn, amax `[B, S]` float32. Other slots do not change. Raises ValueError for an unknown rule.
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
    """Dequantises slots into their tokens of `out`, rounded once to its dtype. Tokens of other slots do not change.

    values, scales, amax, rule: as in `append_nvfp4`. out: `[B, S · T, H, D]`, with slot s at tokens s · T to
    (s + 1) · T − 1. Raises ValueError for an unknown rule.
    """
    _, tokens, heads, channels = out.shape
    slot_count = values.shape[1]
    rows = tokens // slot_count
    matrices = out.view(-1, slot_count, rows, heads * channels)
    packed = NVFP4(values.unflatten(2, (rows, -1)), scales.unflatten(2, (rows, -1)), amax, denominator_of(rule))
    dequantize_batch(packed, matrices, slots)
