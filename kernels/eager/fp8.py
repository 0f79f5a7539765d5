"""Row-wise float8."""

import torch
from torch import Tensor

E4M3_MAX = 448.0


def quantize_fp8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x ≈ codes · scales, with one scale a row: its largest magnitude over 448, the largest float8_e4m3fn.

    x `[M, K]`; returns codes float8_e4m3fn `[M, K]` (x / scale, nearest, ties to even) and scales float32 `[M, 1]`, 1
    for rows of zeros. Both divisions are true ones in float32. A NaN makes its whole row NaN.
    """
    largest = x.abs().amax(-1, keepdim=True).float()
    # By a tensor: torch turns a division by a number into a product with its reciprocal on a GPU.
    scales = largest / torch.full_like(largest, E4M3_MAX)
    scales = torch.where(scales == 0, 1, scales)
    return (x.float() / scales).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scales
