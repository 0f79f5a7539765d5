"""Ablation of a transformer pass of the 5B model at 704x1280 with a full window, and of whole blocks.

    python tests/benchmarks/bench_pass.py [--only ARM …] [--layers N] [--repeats N]     needs a CUDA device
    python tests/benchmarks/bench_pass.py --toy                                         a tiny model, on any machine

Each arm adds one change to the arm that it names; arm a stores K/V as the reference does. Weights are random. First
each arm generates a film with a tiny model, long enough that blocks are evicted, and the flow of each pass is compared
with that of eager PyTorch with ring slots in float32. If one error is above its tolerance, nothing is timed (exit 1).
Then the arms run in order and in reverse order (ABBA). Each time an arm allocates its weights and KV cache, fills its
window, warms up, and is timed with CUDA events and with the clock. Peak memory is that of the allocator during one arm.
A block consists of N denoising passes, the sampler and the clean pass; frames per second are its video frames divided
by its time. A timed pass is in the middle of a block, so that the tokens that arm a moves at the start of each block
count in whole blocks only.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import NamedTuple

import torch
from bench_kernels import CUDA, machine  # first, because it registers this tree as the package `longlive`
from kernel_cases import DEVICE
from longlive.longlive_core.types import TIME_FACTOR
from pass_arms import ARMS, EXACT, FIVE_B, LADDER, SLOTS, TOY, Arm, PassRunner, Size
from pass_baselines import CompiledLayers
from torch import Tensor

# Limits of the relative L2 error of the worst pass of the tiny model: of bf16, and what quantised weights and K/V add.
BF16_TOLERANCE = 2e-2
WEIGHTS_TOLERANCE = {"bf16": 0.0, "fp8": 4e-2, "nvfp4": 1e-1}
KV_TOLERANCE = {"bf16": 0.0, "fp8": 2e-2, "nvfp4": 4e-2}
STEPS = (4, 2)


class Time(NamedTuple):
    """Seconds measured with CUDA events and with the clock."""

    device: float
    wall: float


@dataclass
class Measurements:
    """Measurements of an arm.

    times: of a "pass", and of a block by its number of steps. peak: bytes. attention: kernels that ran. error: message.
    """

    times: dict[str, list[Time]] = field(default_factory=lambda: defaultdict[str, list[Time]](list))
    peak: int = 0
    attention: str = ""
    error: str | None = None


def tolerance(arm: Arm) -> float:
    """Limit of the relative L2 error of an arm."""
    return BF16_TOLERANCE + WEIGHTS_TOLERANCE[arm.weights] + KV_TOLERANCE[arm.kv]


def film_flows(arm: Arm) -> list[Tensor]:
    """Flows of a short film: of two passes of each block from the full window until two blocks have been evicted."""
    # With `auto`, an op that Triton cannot run would be eager, and would be compared with itself.
    runner = PassRunner(arm, TOY, CompiledLayers(tuned=False), "triton" if arm.kernels == "auto" else None)
    torch.manual_seed(1)
    flows: list[Tensor] = []
    for block in range(SLOTS + 2):
        noisy, noisier, clean = torch.randn(3, *runner.noise.shape, device=DEVICE)
        flows += [runner.flow(noisier, 999), runner.flow(noisy, 624)] if block >= SLOTS - 1 else []
        runner.write_kv(clean)
    return flows


def compare(arms: Sequence[Arm]) -> dict[str, float | str]:
    """Relative L2 of the worst pass of each arm, or the message of its error."""
    expected = film_flows(EXACT)
    found: dict[str, float | str] = {}
    for arm in arms:
        try:
            pairs = zip(film_flows(arm), expected, strict=True)
            found[arm.name] = max(float((ours - exact).norm() / exact.norm()) for ours, exact in pairs)
        except Exception as error:
            found[arm.name] = one_line(error)
    return found


def one_line(error: Exception) -> str:
    """Type and message of an error, in one line of 200 characters or less."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def failures(errors: dict[str, float | str]) -> list[str]:
    """A line for each arm that raised an error, or whose error is above its tolerance or NaN."""
    return [
        f"{name}: {error}"
        if isinstance(error, str)
        else f"{name}: {error:.1e}, the tolerance is {tolerance(ARMS[name]):.1e}"
        for name, error in errors.items()
        if isinstance(error, str) or not error <= tolerance(ARMS[name])
    ]


def timed(run: Callable[[], object]) -> Time:
    """Measures one call."""
    if not CUDA:
        began = perf_counter()
        run()
        took = perf_counter() - began
        return Time(took, took)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    began = perf_counter()
    start.record()
    run()
    end.record()
    end.synchronize()
    return Time(start.elapsed_time(end) / 1e3, perf_counter() - began)


def attention_of(run: Callable[[], object]) -> str:
    """Names of the attention kernels of PyTorch that a run calls, as the profiler reports them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    prefix = "aten::_scaled_dot_product_"
    names = {event.key[len(prefix) :] for event in profile.key_averages() if event.key.startswith(prefix)}
    return ", ".join(sorted(name.replace("_attention", "") for name in names))


def measure_arm(arm: Arm, size: Size, compiled: CompiledLayers, record: Measurements, passes: int) -> None:
    """Measures one arm once. An error is recorded, so that the other arms still run."""
    before = torch.cuda.memory_allocated() if CUDA else 0
    try:
        runner = PassRunner(arm, size, compiled)
        runner.fill()
        runner.block(2)
        runner.step()
        record.attention = record.attention or attention_of(runner.step)
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        record.times["pass"] += [timed(runner.step) for _ in range(passes)]
        for steps in STEPS if arm.blocks else ():
            record.times[f"{steps} steps"].append(timed(partial(runner.block, steps)))
        record.peak = max(record.peak, torch.cuda.max_memory_allocated() - before if CUDA else 0)
    except Exception as error:
        record.error = one_line(error)


def measure(arms: Sequence[Arm], size: Size, repeats: int, passes: int) -> dict[str, Measurements]:
    """Measures all arms in order and in reverse order, `repeats` times."""
    torch.compiler.reset()  # the graphs of the comparison have another shape
    compiled, records = CompiledLayers(tuned=True), {arm.name: Measurements() for arm in arms}
    for arm in (*arms, *reversed(arms)) * repeats:
        if records[arm.name].error is None:
            measure_arm(arm, size, compiled, records[arm.name], passes)
            spent = [f"{1e3 * time.device:.1f}" for time in records[arm.name].times["pass"][-passes:]]
            print(f"{arm.name}: {records[arm.name].error or ' '.join(spent)}", file=sys.stderr)
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()
    return records


def spread(times: Sequence[Time], base: Sequence[Time]) -> str:
    """Four cells of milliseconds, and one with the speed relative to the base."""
    device = [time.device for time in times]
    deciles = quantiles(device, n=10, method="inclusive")
    wall = median(time.wall for time in times)
    speedup = f"{median(time.device for time in base) / median(device):.2f}" if base else ""
    return (
        " | ".join(f"{1e3 * value:.1f}" for value in (median(device), deciles[0], deciles[-1], wall)) + f" | {speedup}"
    )


def pass_table(errors: dict[str, float | str], records: dict[str, Measurements]) -> str:
    """The Markdown table of single passes."""
    base = records["a"].times["pass"] if "a" in records else []
    lines = [
        "| pass | | weights | KV | attention | ms | p10 | p90 | clock ms | speed-up | peak GB | error | tolerance |",
        "|---" * 13 + "|",
    ]
    for arm in LADDER:
        if arm.name not in errors and arm.name not in records and arm.not_run is None:
            continue
        record, error = records.get(arm.name, Measurements()), errors.get(arm.name, "")
        missing = arm.not_run or record.error or (arm.not_timed and f"not timed: {arm.not_timed}")
        cells = f"{missing or ''} | | | | " if missing else spread(record.times["pass"], base)
        peak = f"{record.peak / 1e9:.2f}" if record.peak else ""
        compared = "|" if arm.not_run else f"{error:.1e} | {tolerance(arm):.1e}"
        names = f"{arm.name} | {arm.adds} | {arm.weights} | {arm.kv} | {record.attention}"
        lines.append(f"| {names} | {cells} | {peak} | {compared} |")
    return "\n".join(lines)


def block_table(records: dict[str, Measurements], frames: int) -> str:
    """The Markdown table of whole blocks, which have `frames` video frames."""
    lines = ["| whole block | steps | ms | p10 | p90 | clock ms | speed-up | frames/s |", "|---" * 8 + "|"]
    for steps in STEPS:
        key = f"{steps} steps"
        base = records["a"].times[key] if "a" in records else []
        for name, record in records.items():
            if record.times[key]:
                rate = frames / median(time.device for time in record.times[key])
                lines.append(f"| {name} | {steps} | {spread(record.times[key], base)} | {rate:.1f} |")
    return "\n".join(lines)


def commit() -> str:
    """The git commit, or "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("5b", "toy"), default="5b")
    parser.add_argument("--toy", action="store_const", const="toy", dest="model", help="--model toy")
    parser.add_argument(
        "--only", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="run these arms only"
    )
    parser.add_argument(
        "--layers", type=int, help="layers of the model; with another number, figures are not those of the model"
    )
    parser.add_argument("--repeats", type=int, default=3, help="ABBA rounds; each arm runs twice in each")
    parser.add_argument("--passes", type=int, default=5, help="timed passes of an arm in each run")
    arguments = parser.parse_args()
    if not CUDA:
        if arguments.model != "toy":
            sys.exit("no CUDA device was found: use --toy to test that it runs")
        torch.set_num_threads(1)
    size = TOY if arguments.model == "toy" else FIVE_B
    if arguments.layers:
        size = replace(size, config=replace(size.config, num_layers=arguments.layers))
    arms = [arm for arm in LADDER if arm.name in arguments.only and arm.not_run is None]
    print(f"{machine()}\ncommit {commit()}")
    errors = compare(arms)
    failed = failures(errors)
    if failed:
        sys.exit(
            "nothing was timed, because these differ from eager PyTorch in float32 (relative L2):\n" + "\n".join(failed)
        )
    shape = size.block
    print(
        f"{size.config.num_layers} layers of width {size.config.dim}, blocks of {shape.frames} latent frames of "
        f"{shape.height}x{shape.width}, window {SLOTS} blocks; {arguments.repeats} ABBA rounds of "
        f"{arguments.passes} passes{'; toy shapes: the times mean nothing' if size is TOY else ''}\n"
    )
    timed_arms = [arm for arm in arms if arm.not_timed is None]
    records = measure(timed_arms, size, arguments.repeats, arguments.passes)
    print(f"{pass_table(errors, records)}\n\n{block_table(records, TIME_FACTOR * shape.frames)}")


if __name__ == "__main__":
    main()
