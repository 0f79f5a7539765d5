"""Evaluation of LongLive Mini with quantised weights and KV caches: scores, PSNR and bytes of each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch

from ..memory import MemoryConfig, make_pools
from ..mini import LATENT_SIZE, Mini
from ..model.linears import quantize_linears
from ..sampling.generate import generate
from ..types import BLOCK_FRAMES, LatentShape
from ..units import MB
from .measures import psnr
from .mini import STRIDE, Variant, evaluate_variant
from .report import Row
from .scripts import Case, minute_cases, short_cases
from .windows import Frames, decode_windows, plan_windows

PSNR_FILMS: Final = 6


@dataclass(frozen=True, slots=True)
class Format:
    """Formats of the KV cache and of the weights of the layers' linear projections."""

    name: str
    kv: str = "bf16"
    weights: Literal["bf16", "fp8", "nvfp4"] = "bf16"

    @property
    def memory(self) -> MemoryConfig:
        """The default configuration with this format of the KV cache."""
        return MemoryConfig(kv_format=self.kv)


FORMATS: Final = (
    Format("bf16"),
    Format("fp8 KV", kv="fp8"),
    Format("NVFP4 KV", kv="nvfp4"),
    Format("FP8 weights and activations", weights="fp8"),
    Format("NVFP4 weights", weights="nvfp4"),
    Format("NVFP4 weights and KV", kv="nvfp4", weights="nvfp4"),
)


@dataclass(frozen=True, slots=True)
class FormatRow:
    """Figures of one format.

    weight_bytes, kv_bytes: bytes of the tensors. psnr: in dB, compared with films of the same seeds in the first
    format; infinite for the first format.
    """

    row: Row
    weight_bytes: int
    kv_bytes: int
    psnr: float


def evaluate_formats(
    mini: Mini, *, scripts: int = 40, minute_films: int = 12, steps: int = 4, log: Callable[[str], None] | None = None
) -> tuple[FormatRow, ...]:
    """Generates the held-out films of `evaluate_mini` in each format, with all sinks, and reads them with the probe."""
    short, minute = short_cases(scripts), minute_cases(minute_films)
    rows: list[FormatRow] = []
    for storage in FORMATS:
        quantized = quantize_weights(mini, storage.weights)
        variant = Variant(storage.name, storage.memory, steps)
        row = evaluate_variant(quantized, variant, short, minute)
        values = [psnr(a, b) for a, b in _frame_pairs(mini, quantized, storage, short[:PSNR_FILMS], steps)]
        rows.append(FormatRow(row, weight_bytes(mini, storage), kv_bytes(mini, storage), float(np.mean(values))))
        if log is not None:
            log(f"{storage.name}: {row.flicker.seams} windows, {rows[-1].psnr:.1f} dB")
    return tuple(rows)


def quantize_weights(mini: Mini, weights: Literal["bf16", "fp8", "nvfp4"]) -> Mini:
    """A copy of the model with quantised linear projections; the model itself for bf16, its format on disk."""
    if weights == "bf16":
        return mini
    model = deepcopy(mini.model)
    quantize_linears(model, weights)
    return replace(mini, model=model)


def weight_bytes(mini: Mini, storage: Format) -> int:
    """Bytes of the transformer's tensors, with those that are not quantised in bf16."""
    model = quantize_weights(replace(mini, model=deepcopy(mini.model).to(torch.bfloat16)), storage.weights).model
    return sum(tensor.untyped_storage().nbytes() for tensor in model.state_dict().values())


def kv_bytes(mini: Mini, storage: Format) -> int:
    """Bytes of the KV cache of a film at the model's size."""
    model, memory = mini.model.config, storage.memory
    shape = memory.pool_shape(model, LatentShape(1, model.channels, BLOCK_FRAMES, *LATENT_SIZE))
    (pool,) = make_pools(storage.kv, shape, torch.device("cpu"), torch.float32, smoothing=memory.smoothing)
    return sum(tensor.numel() * tensor.element_size() for tensor in pool.tensors(shape.slots))


def format_table(rows: Sequence[FormatRow]) -> str:
    """A Markdown table with one row for each format."""
    names = ("background", "colour", "size", "position")
    lines = [
        "## LongLive Mini in 8 and 4 bits",
        "",
        "All sinks on, and the same held-out films and seeds in every row; % of windows (shot 1, the hero described / "
        "later shots, not described / last 12 s of a minute). PSNR compares with the films of the first row. Sizes are "
        "bytes of the tensors in memory.",
        "",
        f"| format | {' | '.join(names)} | PSNR, dB | weights, MB | KV, MB |",
        "|---" * (len(names) + 4) + "|",
    ]
    for item in rows:
        scores = (item.row.named, item.row.unnamed, item.row.minute)
        cells = [" / ".join(str(part[name]) for part in scores) for name in names]
        sizes = f"{item.weight_bytes / MB:.2f} | {item.kv_bytes / MB:.2f}"
        lines.append(f"| {item.row.name} | {' | '.join(cells)} | {item.psnr:.1f} | {sizes} |")
    return "\n".join([*lines, ""])


def _frame_pairs(
    mini: Mini, quantized: Mini, storage: Format, cases: Sequence[Case], steps: int
) -> Iterator[tuple[Frames, Frames]]:
    """Frames `[16, H, W, 3]` of each window in the first format and in `storage`."""
    for case in cases:
        plain = _window_frames(mini, FORMATS[0].memory, case, steps)
        yield from zip(plain, _window_frames(quantized, storage.memory, case, steps), strict=True)


def _window_frames(mini: Mini, memory: MemoryConfig, case: Case, steps: int) -> list[Frames]:
    plan = case.plan()
    blocks = generate(mini.model, plan, mini.encode_text, memory, size=LATENT_SIZE, steps=steps, seed=case.seed)
    return [frames for _, frames in decode_windows(mini.vae, blocks, plan_windows(plan, STRIDE))]
