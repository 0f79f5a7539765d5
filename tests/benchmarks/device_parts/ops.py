"""All ops of `kernels` at the shapes of the 5B model: eager PyTorch, Triton, and comfy-kitchen where it is installed.

First the results of every op are compared with those of eager PyTorch, after dequantisation, as relative L2; memory
that an op is to write holds NaN before. Then those that agree are timed with cold caches, in the order ABBA. GB/s are
of the bytes that must be read and written once, and the share is of the bandwidth at which the device copies. Without
CUDA, Triton runs in its interpreter, which is compared and not timed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from longlive.kernels import eager

from .kernel_cases import CASES
from .op_case import FIVE_B, TOY, OpCase, Result, Size
from .part import Found, Task, one_line
from .poison import poison, poisoned_allocations
from .timing import CUDA, ColdTimer, abba

EAGER, OURS, COMFY, COMPILED = "eager", "Triton", "comfy-kitchen", "torch.compile"
# Limits of the relative L2 error. Triton rounds wherever eager PyTorch does. The other backends omit roundings between
# operations (2e-3 each, half an ulp of bfloat16), and comfy-kitchen computes NVFP4 scales in another order.
TOLERANCES = {EAGER: 0.0, OURS: 2e-3, COMPILED: 1e-2, COMFY: 2e-2}
ROUNDS = 10

Backends = Mapping[str, Any]
Errors = dict[str, "float | str"]


def tasks(toy: bool) -> list[Task]:
    """The comparison of every op, then the times of every op."""
    size, ops, timer = TOY if toy else FIVE_B, backends(), cache(ColdTimer)
    checks = [Task(name, partial(check, name, size, ops)) for name in CASES]
    times = [Task(name, lambda name=name: time(name, size, ops, timer(), 1 if toy else ROUNDS)) for name in CASES]
    return [*checks, *times]


def backends() -> Backends:
    """Modules that have the ops as attributes, by name; comfy-kitchen only if it is installed."""
    found: dict[str, Any] = {EAGER: eager, OURS: import_module("longlive.kernels.triton")}
    return found | ({COMFY: import_module("comfy_kitchen")} if find_spec("comfy_kitchen") else {})


def make(name: str, size: Size) -> OpCase:
    """The arguments of an op, the same in every call."""
    if CUDA:
        gc.collect()  # the arguments before may be large, and collecting takes longer than a toy op
    torch.manual_seed(0)
    return CASES[name](size)


def runs_of(case: OpCase, ops: Backends) -> dict[str, Callable[[], Result]]:
    """For each backend that has the op, a function that runs it."""
    runs = {name: partial(case.run, found) for name, found in ops.items() if name != COMFY}
    return runs | ({COMFY: partial(case.comfy, ops[COMFY])} if case.comfy and COMFY in ops else {})


def compare(case: OpCase, ops: Backends) -> Errors:
    """Relative L2 between each backend and eager, the largest over the op's results; or the message of its error.

    It is NaN where a backend leaves out an element.
    """
    first = case.run(ops[EAGER])
    expected = [part.to(torch.float32, copy=True) for part in case.decode(first)]
    found: Errors = {}
    for name, run in runs_of(case, ops).items():
        poison(first)
        try:
            # What torch.compile makes allocates for itself, and would be made anew for deterministic ops.
            with nullcontext() if name == COMPILED else poisoned_allocations():
                results = case.decode(run())
        except Exception as error:
            found[name] = one_line(error)
            continue
        pairs = zip(results, expected, strict=True)
        errors = [float((ours.float() - exact).norm() / exact.norm()) for ours, exact in pairs]
        found[name] = max(errors, key=lambda error: (error != error, error))  # NaN is the largest
    return found


def fault(errors: Errors) -> str:
    """The backends that are above their tolerance, or NaN, and Triton if it raised an error; nothing without any."""
    bad = [
        f"{name}: {error if isinstance(error, str) else f'{error:.1e} is above {TOLERANCES[name]:.0e}'}"
        for name, error in errors.items()
        if (name == OURS if isinstance(error, str) else not error <= TOLERANCES[name])
    ]
    return "; ".join(bad)


@torch.inference_mode()
def check(name: str, size: Size, ops: Backends) -> Found:
    """Compares the backends of an op."""
    errors = compare(make(name, size), ops)
    return Found({f"error, {who}": error for who, error in errors.items() if who != EAGER}, red=fault(errors))


@torch.inference_mode()
def time(name: str, size: Size, ops: Backends, timer: ColdTimer, rounds: int) -> Found:
    """Times the backends of an op, in milliseconds. Those that raise an error have none."""
    case = make(name, size)
    runs: dict[str, Callable[[], Result]] = {}
    for who, run in runs_of(case, ops).items():
        if who == OURS and not CUDA:
            continue
        try:
            run()
        except Exception:  # it stands in the comparison
            continue
        runs[who] = run
    moved = sum(part.nbytes for part in (*case.reads, *case.run(ops[EAGER])))
    samples = abba(runs, timer, rounds)
    return Found({"MB": moved / 1e6}, {f"ms, {who}": values for who, values in samples.items()})
