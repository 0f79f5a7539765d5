"""Row-wise FP8 quantisation, one program per row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .bits import encode_e4m3
from .rows import launch, load_row, this_row


def quantize_fp8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises to float8_e4m3fn: x ≈ codes · scales, where the scale of a row is its largest magnitude / 448.

    x `[M, K]` → codes float8_e4m3fn `[M, K]` (x / scale, to nearest, ties to even) and scales float32 `[M, 1]`, 1 for a
    row of zeros. Divisions are exact float32 divisions. A NaN makes its whole row NaN.
    """
    rows, width = x.shape
    codes = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    launch(_quantize_rows, rows, x.contiguous(), codes, scales, width, BLOCK=triton.next_power_of_2(width))
    return codes.view(torch.float8_e4m3fn), scales


@triton.jit
def _quantize_rows(x: tl.tensor, codes: tl.tensor, scales: tl.tensor, width: tl.tensor, BLOCK: tl.constexpr) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    value = load_row(x + row * width, offsets, mask)
    # Magnitudes have the order of their bits, with NaN above all, so the integer maximum keeps a NaN.
    largest = tl.max(value.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0)
    scale = tl.div_rn(tl.cast(largest, tl.float32, bitcast=True), 448.0)  # pyright: ignore[reportArgumentType]
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + row, scale)
    tl.store(codes + row * width + offsets, encode_e4m3(tl.div_rn(value, scale)), mask=mask)
