"""What few bits for keys, values and weights cost the embedded model, and what they save."""

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
from .measures import psnr
from .mini import STRETCH_SECONDS, STRIDE, Mode, judge_film
from .report import Row, make_row
from .scripts import Case, minute_cases, short_cases
from .windows import decode_windows, plan_windows

PSNR_FILMS: Final = 6


@dataclass(frozen=True, slots=True)
class Format:
    """How keys and values, and the weights of the blocks' linear layers, are kept."""

    name: str
    kv: str = "bf16"
    weights: Literal["bf16", "fp8", "nvfp4"] = "bf16"

    @property
    def memory(self) -> MemoryConfig:
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
    """Scores of one format; bytes counted from the tensors that hold them; `psnr` in dB against the first format's
    films of the same seeds, infinite for itself."""

    row: Row
    weight_bytes: int
    kv_bytes: int
    psnr: float


def evaluate_formats(
    mini: Mini, *, scripts: int = 40, minute_films: int = 12, steps: int = 4, log: Callable[[str], None] | None = None
) -> tuple[FormatRow, ...]:
    """The held-out films of `evaluate_mini`, sinks on, in every format."""
    short, minute = short_cases(scripts, 0), minute_cases(minute_films, 0)
    rows: list[FormatRow] = []
    for form in FORMATS:
        rounded = with_weights(mini, form.weights)
        mode = Mode(form.name, form.memory, steps)
        short_samples, minute_samples = (
            [s for case in cases for s in judge_film(rounded, case, mode, STRIDE)] for cases in (short, minute)
        )
        values = [psnr(a, b) for a, b in _pairs(mini, rounded, form, short[:PSNR_FILMS], steps)]
        rows.append(
            FormatRow(
                make_row(form.name, steps, short_samples, minute_samples, STRETCH_SECONDS),
                weight_bytes(mini, form),
                kv_bytes(mini, form),
                float(np.mean(values)),
            )
        )
        if log is not None:
            log(f"{form.name}: {len(short_samples) + len(minute_samples)} looks, {rows[-1].psnr:.1f} dB")
    return tuple(rows)


def with_weights(mini: Mini, weights: str) -> Mini:
    """The model with its blocks' linear layers rounded; itself for bf16, which it was shipped in."""
    if weights == "bf16":
        return mini
    model = deepcopy(mini.model)
    quantize_linears(model, "fp8" if weights == "fp8" else "nvfp4")
    return replace(mini, model=model)


def weight_bytes(mini: Mini, form: Format) -> int:
    """Of the transformer's tensors, those that are not packed in bf16."""
    model = with_weights(replace(mini, model=deepcopy(mini.model).to(torch.bfloat16)), form.weights).model
    return sum(tensor.untyped_storage().nbytes() for tensor in model.state_dict().values())


def kv_bytes(mini: Mini, form: Format) -> int:
    """Of the pool of a film at the model's own size."""
    model, memory = mini.model.config, form.memory
    grid = model.grid(*LATENT_SIZE)
    shape = PoolShape.of(model, batch=1, slots=memory.window // 8, block_tokens=8 * grid[0] * grid[1])
    (pool,) = make_pools(form.kv, shape, torch.device("cpu"), torch.float32, smoothing=memory.smoothing)
    return sum(tensor.numel() * tensor.element_size() for tensor in pool.tensors(shape.slots))


def format_table(rows: Sequence[FormatRow]) -> str:
    """One table, each format beside the first."""
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
    mini: Mini, rounded: Mini, form: Format, cases: Sequence[Case], steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of the first format and of `form`, of the same looks."""
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
            for net, memory in ((mini, FORMATS[0].memory), (rounded, form.memory))
        )
        yield from zip(plain, other, strict=True)
