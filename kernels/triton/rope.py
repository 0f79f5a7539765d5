"""Rotary position embedding over adjacent channel pairs, one program per token."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rows import check_shape, launch, load_row, store_as, this_row


def rope_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates channels (2j, 2j+1) of every head by angle j of the token.

    x `[B, L, H, D]`, cos and sin `[B or 1, L, D/2]` in float32; returns x's shape and dtype. Computed in float32.
    """
    batch, length, heads, width = x.shape
    x = x if x.stride()[2:] == (width, 1) else x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    cos, sin = angles(cos, sin, batch, length, width // 2)
    launch(
        *(_rope_rotate, batch * length, x, cos, sin, out),
        *(x.stride(0), x.stride(1), length, cos.shape[0], heads * width, width // 2),
        BLOCK=triton.next_power_of_2(heads * width),
    )
    return out


def angles(cos: Tensor, sin: Tensor, batch: int, length: int, pairs: int) -> tuple[Tensor, Tensor]:
    """cos and sin made contiguous. Raises ValueError if their shape is not `[batch or 1, length, pairs]`."""
    check_shape("cos", cos, (batch if cos.shape[0] == batch else 1, length, pairs))
    check_shape("sin", sin, tuple(cos.shape))
    return cos.contiguous(), sin.contiguous()


@triton.jit
def rotated(
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    token: tl.tensor,
    angle_tokens: tl.tensor,
    pairs: tl.tensor,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """A token's heads, one after another in float32, rotated by its angles; these repeat after `angle_tokens`."""
    a, b = tl.split(tl.reshape(x, (BLOCK // 2, 2)))
    angle = token % angle_tokens * pairs + tl.arange(0, BLOCK // 2) % pairs
    c, s = tl.load(cos + angle).to(tl.float32), tl.load(sin + angle).to(tl.float32)
    return tl.reshape(tl.join(a * c - b * s, a * s + b * c), (BLOCK,))


@triton.jit
def _rope_rotate(
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    out: tl.tensor,
    batch_stride: tl.tensor,
    token_stride: tl.tensor,
    length: tl.tensor,
    angle_batch: tl.tensor,
    width: tl.tensor,
    pairs: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    token, offsets, mask = this_row(width, BLOCK)
    row = load_row(x + token // length * batch_stride + token % length * token_stride, offsets, mask)
    row = rotated(row, cos, sin, token, angle_batch * length, pairs, BLOCK)
    store_as(out + token * width + offsets, row, mask)
