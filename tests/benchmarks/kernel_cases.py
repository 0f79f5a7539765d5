"""Arguments for each op of `kernels` at the shapes of the 5B model, for `bench_kernels.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from longlive.kernels import eager
from longlive.kernels.nvfp4_format import NVFP4
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6

Result = tuple[Tensor, ...]
Run = Callable[[Any], Result]


@dataclass(frozen=True)
class Size:
    """Shapes of the arguments.

    tokens, frames: of a block. width, heads, ffn: of the transformer. stage: activations of a VAE stage
    `[B, T, H, W, C]`. video: `[1, 3, T, H, W]`. copy: bytes of a copy that is larger than any cache.
    """

    tokens: int
    frames: int
    width: int
    heads: int
    ffn: int
    stage: tuple[int, ...]
    video: tuple[int, ...]
    copy: int


FIVE_B = Size(7040, 8, 3072, 24, 14336, (1, 4, 176, 320, 512), (1, 3, 4, 704, 1280), 1 << 30)
TOY = Size(128, 2, 192, 6, 256, (1, 2, 6, 10, 24), (1, 3, 2, 6, 10), 1 << 22)


@dataclass(frozen=True)
class OpCase:
    """An op with its arguments.

    reads: tensors that must be read once. run: calls the op of a backend. comfy: calls the op of comfy-kitchen. decode:
    dequantises a result.
    """

    reads: tuple[Tensor, ...]
    run: Run
    comfy: Run | None = None
    decode: Callable[[Result], Result] = tuple


def normal(*shape: int) -> Tensor:
    """Random normal numbers in bf16."""
    return torch.randn(*shape, device=DEVICE).to(torch.bfloat16)


def block(size: Size) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Two activations `[1, L, C]`, and gate, scale and shift of each latent frame, `[1, F, C]`."""
    x, y = normal(2, 1, size.tokens, size.width).unbind(0)
    return x, y, normal(1, size.frames, 6, size.width).unbind(2)[:3]


def rotations(size: Size) -> tuple[Tensor, Tensor]:
    """Cosines and sines of random angles, `[1, L, D / 2]`."""
    angles = torch.randn(1, size.tokens, size.width // size.heads // 2, device=DEVICE)
    return angles.cos(), angles.sin()


def rms_norm(size: Size) -> OpCase:
    x, weight = block(size)[0], normal(size.width)
    return OpCase((x, weight), lambda ops: (ops.rms_norm(x, weight, EPS),))


def rms_norm_rope(size: Size) -> OpCase:
    x, weight, (cos, sin), heads = block(size)[0], normal(size.width), rotations(size), size.heads
    slot = normal(1, 4 * size.tokens, heads, size.width // heads)[:, size.tokens : 2 * size.tokens]
    return OpCase((x, weight, cos, sin), lambda ops: (ops.rms_norm_rope(x, weight, cos, sin, heads, EPS, out=slot),))


def rope_rotate(size: Size) -> OpCase:
    x, (cos, sin) = block(size)[0].unflatten(-1, (size.heads, -1)), rotations(size)
    matrices = torch.stack((cos, -sin, sin, cos), -1).unflatten(-1, (2, 2)).unsqueeze(2)
    return OpCase(
        (x, cos, sin), lambda ops: (ops.rope_rotate(x, cos, sin),), lambda comfy: (comfy.apply_rope1(x, matrices),)
    )


def layer_norm_modulate(size: Size) -> OpCase:
    x, _, (_, scale, shift) = block(size)
    by_frame = x.unflatten(1, (size.frames, -1))
    return OpCase(
        (x, scale, shift),
        lambda ops: (ops.layer_norm_modulate(x, scale, shift, EPS),),
        lambda comfy: (comfy.adaln(by_frame, scale.unsqueeze(2), shift.unsqueeze(2), EPS).flatten(1, 2),),
    )


def gate_residual(size: Size) -> OpCase:
    x, y, (gate, _, _) = block(size)
    return OpCase((x, y, gate), lambda ops: (ops.gate_residual(x, y, gate),))


def gate_residual_norm(size: Size) -> OpCase:
    x, y, (gate, _, _) = block(size)
    weight, bias = normal(size.width), normal(size.width)
    return OpCase((x, y, gate, weight, bias), lambda ops: ops.gate_residual_norm(x, y, gate, weight, bias, EPS))


def gate_residual_modulate(size: Size) -> OpCase:
    x, y, (gate, scale, shift) = block(size)
    return OpCase((x, y, gate, scale, shift), lambda ops: ops.gate_residual_modulate(x, y, gate, scale, shift, EPS))


def gelu_tanh(size: Size) -> OpCase:
    x = normal(size.tokens, size.ffn)
    return OpCase((x,), lambda ops: (ops.gelu_tanh(x),))


def quantize_fp8_rows(size: Size) -> OpCase:
    x = normal(size.tokens, size.ffn)
    return OpCase((x,), lambda ops: ops.quantize_fp8_rows(x), decode=lambda result: (result[0].float() * result[1],))


def quantize_nvfp4(size: Size, rule: str) -> OpCase:
    x = normal(size.tokens, size.ffn)
    denominator = 6.0 * (448 if rule == "static_6" else 256)

    def comfy(module: Any) -> Result:  # noqa: ANN401 (comfy-kitchen)
        amax = x.abs().amax().float()
        values, scales = module.quantize_nvfp4(x, amax / denominator, hi_first=False)
        return values, scales.view(-1), amax

    def decode(result: Result) -> Result:
        packed = NVFP4(result[0], result[1], result[2], denominator)
        return (eager.dequantize_nvfp4(packed, (size.tokens, size.ffn), torch.float32),)

    return OpCase((x,), lambda ops: ops.quantize_nvfp4(x, rule)[:3], comfy if rule == "static_6" else None, decode)


def dequantize_nvfp4(size: Size) -> OpCase:
    shape = (size.ffn, size.width)
    packed = eager.quantize_nvfp4(normal(*shape), "mse")
    scales, scale = packed.scales.view(len(packed.values), -1), packed.amax / packed.denominator
    return OpCase(
        packed[:3],
        lambda ops: (ops.dequantize_nvfp4(packed, shape, torch.bfloat16),),
        lambda comfy: (comfy.dequantize_nvfp4(packed.values, scale, scales, torch.bfloat16, hi_first=False),),
    )


def slots(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """An NVFP4 KV store of four slots: codes, scales and amax."""
    values = torch.zeros(1, 4, size.tokens * size.width // 2, dtype=torch.uint8, device=DEVICE)
    scales = torch.zeros(1, 4, size.tokens * size.width // 16, dtype=torch.float8_e4m3fn, device=DEVICE)
    return values, scales, torch.zeros(1, 4, device=DEVICE)


def append_nvfp4(size: Size) -> OpCase:
    x, store, rows = block(size)[0].unflatten(-1, (size.heads, -1)), slots(size), size.tokens * size.heads

    def run(ops: Any) -> Result:  # noqa: ANN401 (a backend)
        ops.append_nvfp4(x, *store, 1)
        return tuple(part[:, 1] for part in store)

    def decode(result: Result) -> Result:
        packed = NVFP4(result[0].view(rows, -1), result[1].view(rows, -1), result[2][0], 6.0 * 256)
        return (eager.dequantize_nvfp4(packed, (rows, x.shape[-1]), torch.float32, swizzled=False),)

    return OpCase((x,), run, decode=decode)


def read_nvfp4(size: Size) -> OpCase:
    x, store = block(size)[0].unflatten(-1, (size.heads, -1)), slots(size)
    out = normal(1, 4 * size.tokens, *x.shape[2:])
    for slot in range(3):
        eager.append_nvfp4(x * (slot + 1), *store, slot)

    def run(ops: Any) -> Result:  # noqa: ANN401 (a backend)
        ops.read_nvfp4(*store, "mse", [0, 1, 2], out)
        return (out[:, : 3 * size.tokens],)

    return OpCase(tuple(part[:, :3] for part in store), run)


def rms_silu_pad(size: Size) -> OpCase:
    x, gamma = normal(*size.stage), normal(size.stage[-1])
    past = normal(size.stage[0], 2, *size.stage[2:])
    return OpCase((x, gamma, past), lambda ops: (ops.rms_silu_pad(x, gamma, past),))


def upsample_nearest(size: Size) -> OpCase:
    x = normal(*size.stage)
    return OpCase((x,), lambda ops: (ops.upsample_nearest(x),))


def to_uint8(size: Size) -> OpCase:
    video = normal(*size.video)
    return OpCase((video,), lambda ops: (ops.to_uint8(video),))


CASES: dict[str, Callable[[Size], OpCase]] = {
    "rms_norm": rms_norm,
    "rms_norm_rope": rms_norm_rope,
    "rope_rotate": rope_rotate,
    "layer_norm_modulate": layer_norm_modulate,
    "gate_residual": gate_residual,
    "gate_residual_norm": gate_residual_norm,
    "gate_residual_modulate": gate_residual_modulate,
    "gelu_tanh": gelu_tanh,
    "quantize_fp8_rows": quantize_fp8_rows,
    "quantize_nvfp4 static_6": partial(quantize_nvfp4, rule="static_6"),
    "quantize_nvfp4 mse": partial(quantize_nvfp4, rule="mse"),
    "dequantize_nvfp4": dequantize_nvfp4,
    "append_nvfp4": append_nvfp4,
    "read_nvfp4": read_nvfp4,
    "rms_silu_pad": rms_silu_pad,
    "upsample_nearest": upsample_nearest,
    "to_uint8": to_uint8,
}
