"""Arguments of the ops whose results are not quantised: of the transformer in bf16, and of the VAE."""

from __future__ import annotations

import torch

from .op_case import EPS, OpCase, Size


def rms_norm(size: Size) -> OpCase:
    x, weight = size.block()[0], size.normal(size.width)
    return OpCase((x, weight), lambda ops: (ops.rms_norm(x, weight, EPS),))


def rms_norm_rope(size: Size) -> OpCase:
    x, weight, (cos, sin), heads = size.block()[0], size.normal(size.width), size.rotations(), size.heads
    slot = size.normal(1, 4 * size.tokens, heads, size.width // heads)[:, size.tokens : 2 * size.tokens]
    return OpCase((x, weight, cos, sin), lambda ops: (ops.rms_norm_rope(x, weight, cos, sin, heads, EPS, out=slot),))


def rope_rotate(size: Size) -> OpCase:
    x, (cos, sin) = size.block()[0].unflatten(-1, (size.heads, -1)), size.rotations()
    matrices = torch.stack((cos, -sin, sin, cos), -1).unflatten(-1, (2, 2)).unsqueeze(2)
    return OpCase(
        (x, cos, sin), lambda ops: (ops.rope_rotate(x, cos, sin),), lambda comfy: (comfy.apply_rope1(x, matrices),)
    )


def layer_norm_modulate(size: Size) -> OpCase:
    x, _, (_, scale, shift) = size.block()
    by_frame = x.unflatten(1, (size.frames, -1))
    return OpCase(
        (x, scale, shift),
        lambda ops: (ops.layer_norm_modulate(x, scale, shift, EPS),),
        lambda comfy: (comfy.adaln(by_frame, scale.unsqueeze(2), shift.unsqueeze(2), EPS).flatten(1, 2),),
    )


def gate_residual(size: Size) -> OpCase:
    x, y, (gate, _, _) = size.block()
    return OpCase((x, y, gate), lambda ops: (ops.gate_residual(x, y, gate),))


def gate_residual_norm(size: Size) -> OpCase:
    x, y, (gate, _, _) = size.block()
    weight, bias = size.normal(size.width), size.normal(size.width)
    return OpCase((x, y, gate, weight, bias), lambda ops: ops.gate_residual_norm(x, y, gate, weight, bias, EPS))


def gate_residual_modulate(size: Size) -> OpCase:
    x, y, (gate, scale, shift) = size.block()
    return OpCase((x, y, gate, scale, shift), lambda ops: ops.gate_residual_modulate(x, y, gate, scale, shift, EPS))


def gelu_tanh(size: Size) -> OpCase:
    x = size.normal(size.tokens, size.ffn)
    return OpCase((x,), lambda ops: (ops.gelu_tanh(x),))


def hadamard16(size: Size) -> OpCase:
    x, signs = size.normal(size.tokens, size.ffn), torch.ones(16, device=size.device)
    return OpCase((x,), lambda ops: (ops.hadamard16(x, signs),))


def rms_silu_pad(size: Size) -> OpCase:
    x, gamma = size.normal(*size.stage), size.normal(size.stage[-1])
    past = size.normal(size.stage[0], 2, *size.stage[2:])
    return OpCase((x, gamma, past), lambda ops: (ops.rms_silu_pad(x, gamma, past),))


def upsample_nearest(size: Size) -> OpCase:
    x = size.normal(*size.stage)
    return OpCase((x,), lambda ops: (ops.upsample_nearest(x),))


def to_uint8(size: Size) -> OpCase:
    video = size.normal(*size.video)
    return OpCase((video,), lambda ops: (ops.to_uint8(video),))
