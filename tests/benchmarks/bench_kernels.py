"""All ops of `kernels` at the shapes of the 5B model at 704x1280, with four backends.

    python tests/benchmarks/bench_kernels.py [--only NAME …] [--repeats N]     needs a CUDA device
    python tests/benchmarks/bench_kernels.py --toy                             tiny shapes, on any machine

The backends are eager PyTorch, torch.compile, Triton and comfy-kitchen, which is included if it can be imported and has
the op. First their results are compared with those of eager PyTorch, after dequantisation, as relative L2. If one error
is above its tolerance, the program names it, times nothing and exits with 1. A backend that raises an error is listed
with the error. The table shows, with cold caches, the median in milliseconds, GB/s of the bytes that must be read and
written once, and their share of the bandwidth at which the device copies. Without CUDA, Triton runs in its interpreter,
which is compared and not timed.
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

from kernel_cases import CASES, DEVICE, FIVE_B, TOY, OpCase, Result, Size  # noqa: E402
from longlive.kernels import eager  # noqa: E402

EAGER, COMPILED, OURS, COMFY = "eager", "torch.compile", "Triton", "comfy-kitchen"
# Limits of the relative L2 error. Triton rounds wherever eager PyTorch does. The other backends omit roundings between
# operations (2e-3 each, half an ulp of bfloat16), and comfy-kitchen computes NVFP4 scales in another order.
TOLERANCES = {EAGER: 0.0, COMPILED: 1e-2, OURS: 2e-3, COMFY: 2e-2}
FLUSH = 256 << 20  # bytes; more than any cache

Backends = dict[str, Any]


class Compiled:
    """The eager ops through torch.compile, each compiled on first use."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        mode = "max-autotune-no-cudagraphs" if CUDA else "default"
        op = torch.compile(getattr(eager, name), dynamic=False, mode=mode)
        setattr(self, name, op)
        return op


def backends() -> Backends:
    """Modules that have the ops as attributes, by name; comfy-kitchen only if it can be imported."""
    found: Backends = {EAGER: eager, COMPILED: Compiled(), OURS: import_module("longlive.kernels.triton")}
    return found | ({COMFY: import_module("comfy_kitchen")} if find_spec("comfy_kitchen") else {})


def runs_of(case: OpCase, ops: Backends) -> dict[str, Callable[[], Result]]:
    """For each backend that has the op, a function that runs it."""
    runs = {name: partial(case.run, found) for name, found in ops.items() if name != COMFY}
    return runs | ({COMFY: partial(case.comfy, ops[COMFY])} if case.comfy and COMFY in ops else {})


def compare(case: OpCase, ops: Backends) -> dict[str, float | str]:
    """Relative L2 between each backend and eager, the largest over the op's results; or the message of its error."""
    first = case.run(ops[EAGER])
    expected = [part.to(torch.float32, copy=True) for part in case.decode(first)]
    found: dict[str, float | str] = {}
    for name, run in runs_of(case, ops).items():
        # Some ops write to tensors of the case, where results of the last backend must not be mistaken for new ones.
        for part in first:
            part.zero_()
        try:
            results = case.decode(run())
        except Exception as error:
            found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            continue
        pairs = zip(results, expected, strict=True)
        found[name] = max(
            float((ours.float() - eager_result).norm() / eager_result.norm()) for ours, eager_result in pairs
        )
    return found


def fails(name: str, error: float | str) -> bool:
    """Whether the error is above the tolerance or NaN, or Triton raised an error."""
    return name == OURS if isinstance(error, str) else not error <= TOLERANCES[name]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of one call. A flush of the caches before each call also hides the time of its launch."""
    flush = torch.empty(FLUSH if CUDA else 1, dtype=torch.uint8, device=DEVICE)
    times: list[float] = []
    for repeat in range(repeats + 5):
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
        times += [spent] if repeat >= 5 else []
    return median(times)


def copy_bandwidth(size: Size, repeats: int) -> float:
    """Bytes per second that the device reads and writes when it copies."""
    source = torch.empty(size.copy, dtype=torch.uint8, device=DEVICE).fill_(1)
    target = torch.empty_like(source)
    return 2 * size.copy / seconds(lambda: target.copy_(source), repeats)


def measure(case: OpCase, ops: Backends, errors: dict[str, float | str], peak: float, repeats: int) -> list[str]:
    """One table row for each backend."""
    written = case.run(ops[EAGER])
    moved = sum(part.nbytes for part in (*case.reads, *written))
    rows: list[str] = []
    for name, run in runs_of(case, ops).items():
        error = errors[name]
        if isinstance(error, str):
            rows.append(f"{name} | fails: {error} | | | |")
        elif name == OURS and not CUDA:
            rows.append(f"{name} | not timed | | | {error:.1e} |")
        else:
            took = seconds(run, repeats)
            rows.append(
                f"{name} | {1e3 * took:.4f} | {moved / took / 1e9:.0f} | {moved / took / peak:.0%} | {error:.1e} |"
            )
    return rows


def machine() -> str:
    """The device and the versions that the figures depend on."""
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
    parser.add_argument("--toy", action="store_true", help="tiny shapes, which test that it runs")
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help="run these ops only"
    )
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    if not (CUDA or arguments.toy):
        sys.exit("no CUDA device was found: use --toy to test that it runs")
    if not CUDA:
        torch.set_num_threads(1)
    size, ops = TOY if arguments.toy else FIVE_B, backends()
    print(machine() + ("\ntoy shapes: the times mean nothing" if arguments.toy else ""))
    errors: dict[str, dict[str, float | str]] = {}
    with torch.inference_mode():
        for name in arguments.only:
            torch.manual_seed(0)
            errors[name] = compare(CASES[name](size), ops)
            gc.collect()
        failures = [f"{op}: {name}: {e}" for op, found in errors.items() for name, e in found.items() if fails(name, e)]
        if failures:
            sys.exit("nothing was timed, because these differ from eager (relative L2):\n" + "\n".join(failures))
        peak = copy_bandwidth(size, arguments.repeats)
        print(f"copies at {peak / 1e9:.0f} GB/s\n\n| op | | ms | GB/s | share of copying | error |")
        print("|---|---|---|---|---|---|")
        for name in arguments.only:
            for row in measure(CASES[name](size), ops, errors[name], peak, arguments.repeats):
                print(f"| {name} | {row}")
            gc.collect()


if __name__ == "__main__":
    main()
