"""A pass of the 5B transformer at 704x1280 with the window full, and whole blocks, from plain torch to ours.

    python tests/benchmarks/bench_pass.py [--only ARM …] [--layers N] [--repeats N]     needs a CUDA device
    python tests/benchmarks/bench_pass.py --toy                                         a tiny model, on any machine

An ablation ladder: each arm adds one thing to the one it names; (a) keeps keys and values as the reference does.
Weights are random. First every arm makes a film of a tiny model, beyond the point where blocks are forgotten, and the
flow of each of its passes is compared with that of eager torch on ring slots in float32. One arm too far off and
nothing is timed (exit 1). Then each arm in turn, and back again (ABBA): it gets weights and memory of its own, fills
its window, warms up, and is timed by CUDA events and by the clock. Peak memory is the allocator's, of that arm alone.
A block is N denoising passes, the sampler, and the clean pass; frames per second are its video frames by its time.
A timed pass is one in the middle of a block: what (a) moves at the start of each block shows in whole blocks alone.
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
from bench_kernels import CUDA, machine  # before all others: it makes `longlive` mean this tree
from kernel_cases import DEVICE
from longlive.longlive_core.types import TIME_FACTOR
from pass_arms import ARMS, EXACT, FIVE_B, LADDER, SLOTS, TOY, Arm, Rig, Size
from pass_baselines import CompiledLayers
from torch import Tensor

# Relative L2 of the worst pass. bfloat16 alone, and what rounding weights and KV of the tiny model may add to it.
BF16 = 2e-2
OF_WEIGHTS = {"bf16": 0.0, "fp8": 4e-2, "nvfp4": 1e-1}
OF_KV = {"bf16": 0.0, "fp8": 2e-2, "nvfp4": 4e-2}
STEPS = (4, 2)


class Time(NamedTuple):
    """Seconds by CUDA events, and by the clock."""

    device: float
    wall: float


@dataclass
class Record:
    """What was seen of an arm. times: of `pass`, and of blocks by their steps; peak: bytes."""

    times: dict[str, list[Time]] = field(default_factory=lambda: defaultdict[str, list[Time]](list))
    peak: int = 0
    attention: str = ""
    fault: str | None = None


def gate(arm: Arm) -> float:
    return BF16 + OF_WEIGHTS[arm.weights] + OF_KV[arm.kv]


def flows(arm: Arm) -> list[Tensor]:
    """Flows of a short film, two of each block from when the window is full until twice a block was forgotten."""
    # Where Triton cannot take an op, `auto` would run the eager one and be compared with itself.
    rig = Rig(arm, TOY, CompiledLayers(tuned=False), "triton" if arm.kernels == "auto" else None)
    torch.manual_seed(1)
    made: list[Tensor] = []
    for block in range(SLOTS + 2):
        noisy, noisier, clean = torch.randn(3, *rig.noise.shape, device=DEVICE)
        made += [rig.flow(noisier, 999), rig.flow(noisy, 624)] if block >= SLOTS - 1 else []
        rig.write_kv(clean)
    return made


def compare(arms: Sequence[Arm]) -> dict[str, float | str]:
    """Relative L2 of each arm, the worst of its passes; where it fails, why."""
    wanted = flows(EXACT)
    found: dict[str, float | str] = {}
    for arm in arms:
        try:
            pairs = zip(flows(arm), wanted, strict=True)
            found[arm.name] = max(float((made - want).norm() / want.norm()) for made, want in pairs)
        except Exception as error:
            found[arm.name] = told(error)
    return found


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def red(errors: dict[str, float | str]) -> list[str]:
    """Arms that failed, or are too far off, or NaN."""
    return [
        f"{name}: {error}" if isinstance(error, str) else f"{name}: {error:.1e}, the gate is {gate(ARMS[name]):.1e}"
        for name, error in errors.items()
        if isinstance(error, str) or not error <= gate(ARMS[name])
    ]


def timed(run: Callable[[], object]) -> Time:
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
    """Which of torch's attentions a run calls, by what the profiler sees and not by what was asked for."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    prefix = "aten::_scaled_dot_product_"
    names = {event.key[len(prefix) :] for event in seen.key_averages() if event.key.startswith(prefix)}
    return ", ".join(sorted(name.replace("_attention", "") for name in names))


def visit(arm: Arm, size: Size, compiled: CompiledLayers, record: Record, passes: int) -> None:
    """One turn of an arm. What makes it fail is kept: it costs its own row, not the others'."""
    before = torch.cuda.memory_allocated() if CUDA else 0
    try:
        rig = Rig(arm, size, compiled)
        rig.fill()
        rig.block(2)
        rig.step()
        record.attention = record.attention or attention_of(rig.step)
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        record.times["pass"] += [timed(rig.step) for _ in range(passes)]
        for steps in STEPS if arm.blocks else ():
            record.times[f"{steps} steps"].append(timed(partial(rig.block, steps)))
        record.peak = max(record.peak, torch.cuda.max_memory_allocated() - before if CUDA else 0)
    except Exception as error:
        record.fault = told(error)


def measure(arms: Sequence[Arm], size: Size, repeats: int, passes: int) -> dict[str, Record]:
    """Every arm, forth and back, `repeats` times."""
    torch.compiler.reset()  # the gate's graphs are of another shape
    compiled, records = CompiledLayers(tuned=True), {arm.name: Record() for arm in arms}
    for arm in (*arms, *reversed(arms)) * repeats:
        if records[arm.name].fault is None:
            visit(arm, size, compiled, records[arm.name], passes)
            spent = [f"{1e3 * time.device:.1f}" for time in records[arm.name].times["pass"][-passes:]]
            print(f"{arm.name}: {records[arm.name].fault or ' '.join(spent)}", file=sys.stderr)
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()
    return records


def spread(times: Sequence[Time], base: Sequence[Time]) -> str:
    """Four cells of milliseconds and one of how many times as fast as the base it is."""
    device = [time.device for time in times]
    tenths = quantiles(device, n=10, method="inclusive")
    wall = median(time.wall for time in times)
    faster = f"{median(time.device for time in base) / median(device):.2f}" if base else ""
    return " | ".join(f"{1e3 * value:.1f}" for value in (median(device), tenths[0], tenths[-1], wall)) + f" | {faster}"


def pass_table(errors: dict[str, float | str], records: dict[str, Record]) -> str:
    base = records["a"].times["pass"] if "a" in records else []
    lines = [
        "| one pass | | weights | KV | attention | ms | p10 | p90 | clock ms | a ÷ it | peak GB | error | gate |",
        "|---" * 13 + "|",
    ]
    for arm in LADDER:
        if arm.name not in errors and arm.name not in records and arm.not_run is None:
            continue
        record, error = records.get(arm.name, Record()), errors.get(arm.name, "")
        missing = arm.not_run or record.fault or (arm.not_timed and f"not timed: {arm.not_timed}")
        cells = f"{missing or ''} | | | | " if missing else spread(record.times["pass"], base)
        peak = f"{record.peak / 1e9:.2f}" if record.peak else ""
        compared = "|" if arm.not_run else f"{error:.1e} | {gate(arm):.1e}"
        names = f"{arm.name} | {arm.adds} | {arm.weights} | {arm.kv} | {record.attention}"
        lines.append(f"| {names} | {cells} | {peak} | {compared} |")
    return "\n".join(lines)


def block_table(records: dict[str, Record], frames: int) -> str:
    lines = ["| whole block | steps | ms | p10 | p90 | clock ms | a ÷ it | frames/s |", "|---" * 8 + "|"]
    for steps in STEPS:
        key = f"{steps} steps"
        base = records["a"].times[key] if "a" in records else []
        for name, record in records.items():
            if record.times[key]:
                rate = frames / median(time.device for time in record.times[key])
                lines.append(f"| {name} | {steps} | {spread(record.times[key], base)} | {rate:.1f} |")
    return "\n".join(lines)


def commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("5b", "toy"), default="5b")
    parser.add_argument("--toy", action="store_const", const="toy", dest="model", help="--model toy")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="of these arms")
    parser.add_argument("--layers", type=int, help="a model of so many; its figures say nothing of the whole one")
    parser.add_argument("--repeats", type=int, default=3, help="ABBA rounds: every arm has two turns in each")
    parser.add_argument("--passes", type=int, default=5, help="timed in each turn")
    arguments = parser.parse_args()
    if not CUDA:
        if arguments.model != "toy":
            sys.exit("no CUDA device: --toy shows that it runs")
        torch.set_num_threads(1)
    size = TOY if arguments.model == "toy" else FIVE_B
    if arguments.layers:
        size = replace(size, config=replace(size.config, num_layers=arguments.layers))
    arms = [arm for arm in LADDER if arm.name in arguments.only and arm.not_run is None]
    print(f"{machine()}\ncommit {commit()}")
    errors = compare(arms)
    faults = red(errors)
    if faults:
        sys.exit("not timed, too far from eager torch in float32 (relative L2):\n" + "\n".join(faults))
    shape = size.block
    print(
        f"{size.config.num_layers} layers of width {size.config.dim}, blocks of {shape.frames} latent frames of "
        f"{shape.height}x{shape.width}, window {SLOTS} blocks; {arguments.repeats} ABBA rounds of "
        f"{arguments.passes} passes a turn{'; toy shapes: that it runs, not how fast' if size is TOY else ''}\n"
    )
    timeable = [arm for arm in arms if arm.not_timed is None]
    records = measure(timeable, size, arguments.repeats, arguments.passes)
    print(f"{pass_table(errors, records)}\n\n{block_table(records, TIME_FACTOR * shape.frames)}")


if __name__ == "__main__":
    main()
