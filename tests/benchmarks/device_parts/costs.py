"""Milliseconds of a pass and of a video frame, computed from its work and the rates of an H200.

A pass takes what its products, its attention and its other ops take. An op takes the larger of two times: its bytes at
the bandwidth, and its instructions. Rates are those that others measured on the same card; nothing here was run on it.
"Before" is the code before it was made fast on a GPU: ComfyUI's order of attention backends, roundings in integer
arithmetic, linear layers in FP8 that quantise and add the bias by themselves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .arms import FIVE_B, SLOTS
from .op_case import FIVE_B as OP_SIZE
from .work import SQUARE, Work, case_bytes, pass_work

BYTES = 4.3e12
"""Bytes a second that a copy moves."""
FLOPS = {"bf16": 750e12, "fp8": 1250e12}
ATTENTION = {"flash": 355e12, "cudnn": 620e12, "fp8": 1000e12}
"""FLOP a second of products and of attention."""
PASSES = {4: 5, 2: 3}
"""Passes of a block, by the number of steps: the clean pass is one more."""
FRAMES = 32
FP32, BF16, FP8 = 4, 2, 1
"""Bytes of a number."""
LAYERS = FIVE_B.config.num_layers

AS_IT_WAS = {
    "rms_norm": 29,
    "rms_norm_rope": 46,
    "layer_norm_modulate": 53,
    "gate_residual": 37,
    "gate_residual_norm": 61,
    "gate_residual_modulate": 67,
    "gelu_tanh": 97,
    "quantize_fp8_rows 3072": 35,
    "quantize_fp8_rows": 121,
    "dequantize_nvfp4": 51,
    "read_nvfp4": 76,
}
"""Microseconds of ops before roundings were the hardware's, from a count of the instructions then."""
INSTRUCTIONS = {
    "rms_norm": 9,
    "rms_norm_rope": 21,
    "layer_norm_modulate": 22,
    "gate_residual": 8,
    "gate_residual_norm": 25,
    "gate_residual_modulate": 27,
    "gelu_tanh": 55,
    "quantize_fp8_rows": 48,
    "quantize_fp8_rows 3072": 16,
    "quantize_fp8_heads": 31,
    "layer_norm_modulate_fp8": 36,
    "gate_residual_norm_fp8": 39,
    "gate_residual_modulate_fp8": 39,
    "gelu_tanh_fp8": 103,
    "dequantize_nvfp4": 26,
    "read_nvfp4": 52,
    "read_nvfp4 centred": 62,
    "read_fp8": 22,
}
"""Microseconds of the instructions of ops, as `kernel_table.py --arch 90` prints them."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one pass: products, attention over the window and the prompt, all other ops."""

    products: float
    attention: float
    text: float
    others: float

    @property
    def total(self) -> float:
        return self.products + self.attention + self.text + self.others

    def frame(self, steps: int = 4) -> float:
        """Milliseconds of a video frame."""
        return self.total * PASSES[steps] / FRAMES


@dataclass(frozen=True)
class ComputedArm:
    """An arm of the ladder, before and after; before is None where it could not be run."""

    name: str
    title: str
    before: Cost | None
    after: Cost


def arms() -> list[ComputedArm]:
    """All computed arms, by the names of the ladder."""
    plain = after("bf16", "bf16")
    return [
        ComputedArm("d", "bf16", before("bf16", "bf16"), plain),
        ComputedArm("e", "FP8 linears", before("fp8", "bf16"), after("fp8", "bf16")),
        ComputedArm("e8", "FP8 linears and attention", None, after("fp8", "bf16", "fp8")),
        ComputedArm("f", "NVFP4 weights", before("nvfp4", "bf16"), after("nvfp4", "bf16")),
        ComputedArm("g", "KV in FP8", before("bf16", "fp8"), after("bf16", "fp8")),
        ComputedArm("h", "KV in NVFP4", before("bf16", "nvfp4"), after("bf16", "nvfp4")),
        ComputedArm("fh", "NVFP4 weights and KV", before("nvfp4", "nvfp4"), after("nvfp4", "nvfp4")),
        ComputedArm("", "bf16 with a LoRA beside every layer", lora(before("bf16", "bf16"), 3), lora(plain, 1)),
    ]


def after(weights: str, kv: str, attention: str = "cudnn") -> Cost:
    """A pass as it is."""
    work = pass_work(weights, kv)
    calls = Counter(work.calls)
    if weights != "fp8":
        calls["gelu_tanh"] += LAYERS  # PyTorch's GELU between the layers, which moves the same bytes
    others = sum(count * op_ms(name) for name, count in calls.items())
    return cost(work, weights, attention, others + (LAYERS * fp8_attention_ms() if attention == "fp8" else 0.0))


def before(weights: str, kv: str) -> Cost:
    """A pass as it was. Linear layers in FP8 had ops of their own to quantise and to add the bias."""
    work = pass_work("bf16" if weights == "fp8" else weights, kv)
    calls, others = Counter(work.calls), 0.0
    calls["gelu_tanh"] += LAYERS
    if weights == "fp8":
        calls.update({"quantize_fp8_rows 3072": 7 * LAYERS, "quantize_fp8_rows": LAYERS})
        others = 1e3 * 4 * work.outputs / BYTES  # each output is read and written again
    others += sum(count * op_ms_before(name) for name, count in calls.items())
    return cost(work, weights, "flash", others)


def cost(work: Work, weights: str, attention: str, others: float) -> Cost:
    """The times of work. The prompt is attended in bf16 whatever the attention over the window is."""
    rate, text_rate = ATTENTION[attention], ATTENTION["cudnn" if attention == "fp8" else attention]
    products = work.products / FLOPS["fp8" if weights == "fp8" else "bf16"]
    return Cost(1e3 * products, 1e3 * work.attention / rate, 1e3 * work.text_attention / text_rate, others)


def op_ms(name: str) -> float:
    """Milliseconds of one call of an op. Raises KeyError for one whose instructions were not counted."""
    if name == SQUARE:
        return FIVE_B.config.dim / FIVE_B.config.ffn_dim * op_ms("dequantize_nvfp4")
    return max(1e3 * case_bytes(name) / BYTES, 1e-3 * INSTRUCTIONS[name])


def fp8_attention_ms() -> float:
    """Milliseconds that a layer takes beside the product of attention in FP8 by cuDNN, as `fp8_backends.CuDNN` does it.

    The case of the op is that of k and of v; q has a fourth of their tokens. Each is read once more before, for its
    scales. q before and the output after are multiplied with scales in float32: PyTorch's cast, product and cast.
    """
    numbers = FIVE_B.config.dim * OP_SIZE.tokens
    quantise = op_ms("quantize_fp8_heads") + 1e3 * BF16 * SLOTS * numbers / BYTES
    casts = (BF16 + FP32) + (FP32 + FP32) + (FP32 + BF16) + (FP8 + FP32) + (FP32 + FP32) + (FP32 + BF16)
    return (2 + 1 / SLOTS) * quantise + 1e3 * casts * numbers / BYTES


def op_ms_before(name: str) -> float:
    """As it was. FP8 K/V were cast, then multiplied: seven bytes for each number where three are enough."""
    if name == SQUARE:
        return FIVE_B.config.dim / FIVE_B.config.ffn_dim * op_ms_before("dequantize_nvfp4")
    if name == "read_fp8":
        return 7 / 3 * 1e3 * case_bytes(name) / BYTES
    name = name.removesuffix(" centred")
    return max(op_ms(name), 1e-3 * AS_IT_WAS[name])


def lora(of: Cost, times: int) -> Cost:
    """With a LoRA beside every layer, whose outputs are read and written again this number of times."""
    more = times * 1e3 * 4 * pass_work().outputs / BYTES
    return Cost(of.products, of.attention, of.text, of.others + more)
