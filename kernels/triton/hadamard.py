"""The Hadamard transform of groups of 16 values in Triton."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from .rows import part_indices, round_as

_ROWS, _COLUMNS = 16, 128
"""Rows and columns of the part of a matrix that one program handles."""


def hadamard16(x: Tensor, signs: Tensor) -> Tensor:
    """Multiplies each group of 16 values of a row by diag(signs) H / 4, where H is Sylvester's matrix.

    x `[M, K]`, any float dtype and strides; K must be a multiple of 16. signs: `[16]`, +1 or −1. The sums are float32,
    in the order of the eager op. Raises ValueError for other widths.
    """
    rows, columns = x.shape
    if columns % 16:
        raise ValueError(f"rows of {columns} values are not whole groups of 16; pad them with zeros")
    out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(columns, _COLUMNS))
    kernel: JITFunction[Any] = _transform
    with torch.cuda.device_of(x):
        kernel[grid](x, signs.float().contiguous(), out, rows, columns, *x.stride(), ROWS=_ROWS, COLUMNS=_COLUMNS)
    return out


@triton.jit
def _transform(
    x: tl.tensor,
    signs: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    x_row: tl.tensor,
    x_column: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row, column, mask = part_indices(rows, columns, ROWS, COLUMNS)
    value = tl.load(x + row * x_row + column.to(tl.int64) * x_column, mask=mask, other=0.0).to(tl.float32)
    value = value * tl.load(signs + column % 16)
    # Sums and differences of the values that are 1, 2, 4 and 8 columns apart.
    for level in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]
        pairs = tl.reshape(value, (ROWS * COLUMNS // (2 << level), 2, 1 << level))
        first, second = tl.split(tl.permute(pairs, (0, 2, 1)))
        pairs = tl.permute(tl.join(first + second, first - second), (0, 2, 1))
        value = tl.reshape(pairs, (ROWS, COLUMNS))
    tl.store(out + row * columns + column, round_as(value / 4, out), mask=mask)
