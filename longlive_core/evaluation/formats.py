"""Quality and memory of the embedded model with quantised KV cache and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch

from ..memory import MemoryConfig, PoolShape, make_pools
from ..mini import LATENT_SIZE, Mini
from ..model.linears import quantize_linears
from ..sampling.generate import generate
from ..types import BLOCK_FRAMES
from .measures import psnr
from .mini import INTERVAL_SECONDS, STRIDE, Mode, judge_film
from .report import Row, make_row
from .scripts import Case, minute_cases, short_cases
from .windows import decode_windows, plan_windows

PSNR_FILMS: Final = 6


@dataclass(frozen=True, slots=True)
class Format:
    """Formats of the KV cache and of the weights of the transformer blocks' linear layers."""

    name: str
    kv: str = "bf16"
    weights: Literal["bf16", "fp8", "nvfp4"] = "bf16"

    @property
    def memory(self) -> MemoryConfig:
        """Memory settings with this KV format."""
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
    """Scores of one format.

    Bytes are those of the tensors. psnr: in dB against the films of the first format with the same seeds.
    """

    row: Row
    weight_bytes: int
    kv_bytes: int
    psnr: float


def evaluate_formats(
    mini: Mini, *, scripts: int = 40, minute_films: int = 12, steps: int = 4, log: Callable[[str], None] | None = None
) -> tuple[FormatRow, ...]:
    """Evaluate every format with sinks on the held-out films of `evaluate_mini`."""
    short, minute = short_cases(scripts, 0), minute_cases(minute_films, 0)
    rows: list[FormatRow] = []
    for number_format in FORMATS:
        rounded = with_weights(mini, number_format.weights)
        mode = Mode(number_format.name, number_format.memory, steps)
        short_samples, minute_samples = (
            [s for case in cases for s in judge_film(rounded, case, mode, STRIDE)] for cases in (short, minute)
        )
        values = [psnr(a, b) for a, b in _pairs(mini, rounded, number_format, short[:PSNR_FILMS], steps)]
        rows.append(
            FormatRow(
                make_row(number_format.name, steps, short_samples, minute_samples, INTERVAL_SECONDS),
                weight_bytes(mini, number_format),
                kv_bytes(mini, number_format),
                float(np.mean(values)),
            )
        )
        if log is not None:
            log(f"{number_format.name}: {len(short_samples) + len(minute_samples)} windows, {rows[-1].psnr:.1f} dB")
    return tuple(rows)


def with_weights(mini: Mini, weights: str) -> Mini:
    """Copy of the model with quantised linear layers in its blocks; the model itself for bf16, its own format."""
    if weights == "bf16":
        return mini
    model = deepcopy(mini.model)
    quantize_linears(model, "fp8" if weights == "fp8" else "nvfp4")
    return replace(mini, model=model)


def weight_bytes(mini: Mini, number_format: Format) -> int:
    """Bytes of the transformer's tensors; those that are not quantised are bf16."""
    model = with_weights(replace(mini, model=deepcopy(mini.model).to(torch.bfloat16)), number_format.weights).model
    return sum(tensor.untyped_storage().nbytes() for tensor in model.state_dict().values())


def kv_bytes(mini: Mini, number_format: Format) -> int:
    """Bytes of the KV cache of a film at the model's training resolution."""
    model, memory = mini.model.config, number_format.memory
    grid = model.grid(*LATENT_SIZE)
    shape = PoolShape.of(
        model, batch=1, slots=memory.window // BLOCK_FRAMES, block_tokens=BLOCK_FRAMES * grid[0] * grid[1]
    )
    (pool,) = make_pools(number_format.kv, shape, torch.device("cpu"), torch.float32, smoothing=memory.smoothing)
    return sum(tensor.numel() * tensor.element_size() for tensor in pool.tensors(shape.slots))


def format_table(rows: Sequence[FormatRow]) -> str:
    """Markdown table with one row per format."""
    names = ("background", "colour", "size", "position")
    lines = [
        "## LongLive Mini in few bits",
        "",
        "Sinks on, the same held-out films and seeds in every row; % of looks (shot 1 named / later shots unnamed / "
        "last 12 s of a minute). PSNR is against the films of the first row; bytes are counted from tensors in memory.",
        "",
        f"| format | {' | '.join(names)} | PSNR, dB | weights, MB | KV, MB |",
        "|---" * (len(names) + 4) + "|",
    ]
    for item in rows:
        cells = [
            " / ".join(str(part[n]) for part in (item.row.named, item.row.unnamed, item.row.minute)) for n in names
        ]
        sizes = f"{item.weight_bytes / 1e6:.2f} | {item.kv_bytes / 1e6:.2f}"
        lines.append(f"| {item.row.name} | {' | '.join(cells)} | {item.psnr:.1f} | {sizes} |")
    return "\n".join([*lines, ""])


def _pairs(
    mini: Mini, rounded: Mini, number_format: Format, cases: Sequence[Case], steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield frames `[16, H, W, 3]` of the first format and of `number_format`, of the same windows."""
    for case in cases:
        plain, other = (
            [
                frames
                for _, frames in decode_windows(
                    net.vae,
                    generate(
                        net.model, case.plan(), net.encode_text, memory, size=LATENT_SIZE, steps=steps, seed=case.seed
                    ),
                    plan_windows(case.plan(), STRIDE),
                )
            ]
            for net, memory in ((mini, FORMATS[0].memory), (rounded, number_format.memory))
        )
        yield from zip(plain, other, strict=True)
