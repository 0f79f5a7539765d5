"""Row-wise FP8 quantisation."""

import torch
from torch import Tensor

E4M3_MAX = 448.0


def quantize_fp8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises to float8_e4m3fn: x ≈ codes · scales, where the scale of a row is its largest magnitude / 448.

    x `[M, K]` → codes float8_e4m3fn `[M, K]` (x / scale, to nearest, ties to even) and scales float32 `[M, 1]`, 1 for a
    row of zeros. Divisions are exact float32 divisions. A NaN makes its whole row NaN.
    """
    largest = x.abs().amax(-1, keepdim=True).float()
    # Divided by a tensor, because PyTorch on a GPU replaces a division by a number with a product by its reciprocal.
    scales = largest / torch.full_like(largest, E4M3_MAX)
    scales = torch.where(scales == 0, 1, scales)
    return (x.float() / scales).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scales
