"""Training in NVFP4: bias of stochastic rounding, and what a training step of LongLive Mini costs on a CPU.

    python tests/benchmarks/bench_nvfp4_training.py                    bias of roundings, 400 draws
    python tests/benchmarks/bench_nvfp4_training.py --films FOLDER     also steps on encoded films; Linux only

Bias: relative L2 distance of the mean over all draws from the numbers, of a normal matrix `[128, 256]` in bf16. Chance:
what the standard errors of the draws let one expect of a rounding without bias. Noise: relative L2 error of one draw.

Steps: each configuration trains in a process of its own, with one thread. CPU seconds: of the median step, after one
step that is not counted. Peak: of the process, in MB. FOLDER is made by `longlive train mini --only films --vae shipped
--films 20`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from longlive.kernels import dequantize_nvfp4, quantize_nvfp4_stochastic
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.model.nvfp4_products import NVFP4Settings
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.ar_stage import ARStage
from longlive.longlive_core.training.film_source import FilmSource, read_films
from longlive.longlive_core.training.stage import OptimiserSettings
from process_memory import memory_mb
from torch import Tensor

SHAPE = (128, 256)
ROUNDINGS = {
    "unbiased, mse (default)": ("mse", True),
    "unbiased, static_6": ("static_6", True),
    "LongLive 2.0, static_6": ("static_6", False),
    "LongLive 2.0, mse": ("mse", False),
}
STEPS: dict[str, tuple[ARSettings, bool]] = {
    "float32": (ARSettings(window=32), False),
    "bf16": (ARSettings(window=32), True),
    "NVFP4": (ARSettings(window=32, kv_format="nvfp4", nvfp4=NVFP4Settings()), False),
    "NVFP4, nearest": (ARSettings(window=32, kv_format="nvfp4", nvfp4=NVFP4Settings(rounding="nearest")), False),
}
FILMS, BLOCKS = 20, 15


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--films", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", choices=list(STEPS), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.only is not None:
        return print_steps(args.only, args.films, args.steps)
    print("| rounding | bias, % | chance, % | noise, % |\n|---|---|---|---|")
    for name, (rule, unbiased) in ROUNDINGS.items():
        print(f"| {name} | {' | '.join(f'{100 * x:.2f}' for x in bias(rule, unbiased, args.draws))} |", flush=True)
    if args.films is None:
        return None
    print("\n| training step | CPU seconds | peak, MB | loss of the first step |\n|---|---|---|---|", flush=True)
    for name in STEPS:
        options = ["--films", str(args.films), "--steps", str(args.steps), "--only", name]
        subprocess.run([sys.executable, __file__, *options], check=True)
    return None


def bias(rule: str, unbiased: bool, draws: int) -> tuple[float, float, float]:
    """Bias of the mean over some draws, what chance lets one expect of it, and the error of one draw."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).bfloat16()
    generator = torch.Generator().manual_seed(1)
    candidates = () if unbiased or rule == "static_6" else (2,)
    total, squares = (torch.zeros(SHAPE, dtype=torch.float64) for _ in range(2))
    for _ in range(draws):
        uniforms = torch.rand((*candidates, *SHAPE), generator=generator)
        packed = quantize_nvfp4_stochastic(x, uniforms, rule, unbiased=unbiased, swizzled=False)
        error = dequantize_nvfp4(packed, SHAPE, torch.float32, swizzled=False).double() - x.double()
        total += error
        squares += error.square()
    mean = total / draws
    variance = (squares / draws - mean.square()) * draws / (draws - 1)
    size = float(x.double().norm())
    return (
        float(mean.norm()) / size,
        math.sqrt(float(variance.sum()) / draws) / size,
        math.sqrt(float(squares.sum()) / draws) / size,
    )


def print_steps(name: str, films: Path, steps: int) -> None:
    """Trains for some steps in this process and prints a row of the table."""
    settings, mixed = STEPS[name]
    mini = load_mini()
    mini.model.requires_grad_(True)
    source = FilmSource(mini, read_films(mini, films, 0, FILMS), BLOCKS)
    stage = ARStage(mini.model, source, settings, OptimiserSettings(1e-4), 0)
    optimiser = torch.optim.AdamW(mini.model.parameters(), lr=1e-4)
    losses: list[Tensor] = []
    seconds: list[float] = []
    for step in range(steps + 1):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = stage.loss("model", step, 0).value
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.detach())
        seconds.append(time.process_time() - start)
    figures = f"{statistics.median(seconds[1:]):.2f} | {memory_mb('VmHWM'):.0f} | {float(losses[0]):.4f}"
    print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
