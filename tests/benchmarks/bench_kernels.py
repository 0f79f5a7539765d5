"""Every op of `kernels` at the shapes of the 5B model at 704x1280: eager torch, torch.compile, Triton, comfy-kitchen.

    python tests/benchmarks/bench_kernels.py [--only NAME …] [--repeats N]     needs a CUDA device
    python tests/benchmarks/bench_kernels.py --toy                             tiny shapes, on any machine

First each contender is compared with eager: relative L2 of the numbers its result stands for. One that is too far off
is named and nothing is timed (exit 1). comfy-kitchen takes part where it can be imported and has the op; a contender
that fails is named beside its op. Then, with cold caches: median milliseconds, GB/s of what has to be read and written
once, and the share of the bandwidth at which this device copies. Where there is no CUDA, Triton runs in its
interpreter: compared, never timed.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from types import ModuleType
from typing import Any

import torch

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"
package = ModuleType("longlive")
package.__path__ = [str(Path(__file__).resolve().parents[2])]
sys.modules.setdefault("longlive", package)

from kernel_cases import CASES, DEVICE, FIVE_B, TOY, Case, Result, Size  # noqa: E402
from longlive.kernels import eager  # noqa: E402

EAGER, COMPILED, OURS, COMFY = "eager", "torch.compile", "Triton", "comfy-kitchen"
# Relative L2. Triton rounds where eager does; the others leave out roundings between operations (half an ulp of
# bfloat16 each, 2e-3), and comfy-kitchen computes NVFP4 scales in another order.
GATES = {EAGER: 0.0, COMPILED: 1e-2, OURS: 2e-3, COMFY: 2e-2}
FLUSH = 256 << 20

Backends = dict[str, Any]


class Compiled:
    """The eager ops through torch.compile, each once."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        mode = "max-autotune-no-cudagraphs" if CUDA else "default"
        op = torch.compile(getattr(eager, name), dynamic=False, mode=mode)
        setattr(self, name, op)
        return op


def backends() -> Backends:
    """What has ops as attributes, by name; comfy-kitchen where it can be imported."""
    found: Backends = {EAGER: eager, COMPILED: Compiled(), OURS: import_module("longlive.kernels.triton")}
    return found | ({COMFY: import_module("comfy_kitchen")} if find_spec("comfy_kitchen") else {})


def contenders(case: Case, ops: Backends) -> dict[str, Callable[[], Result]]:
    """What there is to run for an op."""
    runs = {name: partial(case.run, found) for name, found in ops.items() if name != COMFY}
    return runs | ({COMFY: partial(case.comfy, ops[COMFY])} if case.comfy and COMFY in ops else {})


def compare(case: Case, ops: Backends) -> dict[str, float | str]:
    """Relative L2 of each contender from eager, the worst of its results; where it fails, why."""
    first = case.run(ops[EAGER])
    wanted = [part.to(torch.float32, copy=True) for part in case.decode(first)]
    found: dict[str, float | str] = {}
    for name, run in contenders(case, ops).items():
        # Some ops write to memory that the case holds: what the one before left there must not count.
        for part in first:
            part.zero_()
        try:
            made = case.decode(run())
        except Exception as error:
            found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            continue
        pairs = zip(made, wanted, strict=True)
        found[name] = max(float((part.float() - want).norm() / want.norm()) for part, want in pairs)
    return found


def is_red(name: str, error: float | str) -> bool:
    """Too far from eager, NaN, or ours and not running."""
    return name == OURS if isinstance(error, str) else not error <= GATES[name]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median of one call, the caches flushed before each; the flush also hides the cost of launching."""
    flush = torch.empty(FLUSH if CUDA else 1, dtype=torch.uint8, device=DEVICE)
    took: list[float] = []
    for turn in range(repeats + 5):
        flush.zero_()
        if CUDA:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            spent = start.elapsed_time(end) / 1e3
        else:
            began = perf_counter()
            run()
            spent = perf_counter() - began
        took += [spent] if turn >= 5 else []
    return median(took)


def copy_bandwidth(size: Size, repeats: int) -> float:
    source = torch.empty(size.copy, dtype=torch.uint8, device=DEVICE).fill_(1)
    target = torch.empty_like(source)
    return 2 * size.copy / seconds(lambda: target.copy_(source), repeats)


def measure(case: Case, ops: Backends, errors: dict[str, float | str], peak: float, repeats: int) -> list[str]:
    """One table row a contender."""
    written = case.run(ops[EAGER])
    moved = sum(part.nbytes for part in (*case.reads, *written))
    rows: list[str] = []
    for name, run in contenders(case, ops).items():
        error = errors[name]
        if isinstance(error, str):
            rows.append(f"{name} | cannot: {error} | | | |")
        elif name == OURS and not CUDA:
            rows.append(f"{name} | not timed | | | {error:.1e} |")
        else:
            took = seconds(run, repeats)
            rows.append(
                f"{name} | {1e3 * took:.4f} | {moved / took / 1e9:.0f} | {moved / took / peak:.0%} | {error:.1e} |"
            )
    return rows


def machine() -> str:
    """What the figures depend on."""
    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    versions += [f"{name} {version(name)}" for name in ("triton", "comfy_kitchen") if find_spec(name)]
    if not CUDA:
        return f"{os.cpu_count()} CPU cores, " + ", ".join(versions)
    query = "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    lines = [", ".join([torch.cuda.get_device_name(), *versions])]
    if shutil.which("nvidia-smi"):
        lines.append(subprocess.check_output(["nvidia-smi", query, "--format=csv"], text=True).strip())
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny shapes: whether it runs, not how fast")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help="of these ops")
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    if not (CUDA or arguments.toy):
        sys.exit("no CUDA device: --toy shows that it runs")
    if not CUDA:
        torch.set_num_threads(1)
    size, ops = TOY if arguments.toy else FIVE_B, backends()
    print(machine() + ("\ntoy shapes: that it runs, not how fast" if arguments.toy else ""))
    errors: dict[str, dict[str, float | str]] = {}
    with torch.inference_mode():
        for name in arguments.only:
            torch.manual_seed(0)
            errors[name] = compare(CASES[name](size), ops)
            gc.collect()
        red = [f"{op}: {name}: {e}" for op, found in errors.items() for name, e in found.items() if is_red(name, e)]
        if red:
            sys.exit("not timed, too far from eager (relative L2):\n" + "\n".join(red))
        peak = copy_bandwidth(size, arguments.repeats)
        print(f"copies at {peak / 1e9:.0f} GB/s\n\n| op | | ms | GB/s | of copying | error |")
        print("|---|---|---|---|---|---|")
        for name in arguments.only:
            for row in measure(CASES[name](size), ops, errors[name], peak, arguments.repeats):
                print(f"| {name} | {row}")
            gc.collect()


if __name__ == "__main__":
    main()
