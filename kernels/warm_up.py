"""Compiles the kernels before a film needs them."""

from __future__ import annotations

import logging
from functools import cache
from time import perf_counter

import torch

from . import OPS
from .registry import triton_backend

log = logging.getLogger(__name__)


def warm_up(device: torch.device) -> float:
    """Tests every kernel on a device, which compiles it for the widths of the 5B model. Returns the seconds it took.

    The first call on a device does so and logs the time; later ones return its result. Without Triton, or on a CPU,
    there is nothing to do. Otherwise the first block of a film would wait for each kernel, about 0.7 s.
    """
    if device.type != "cuda" or triton_backend().module is None:
        return 0.0
    return compile_all(torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device)


@cache
def compile_all(device: torch.device) -> float:
    """Compiles and tests every kernel on a device, once. Returns the seconds it took."""
    start = perf_counter()
    passed = [op.passes_self_test(device) for op in OPS]
    torch.cuda.synchronize(device)
    took = perf_counter() - start
    log.info("kernels: %d of %d compiled and tested on %s in %.1f s", sum(passed), len(OPS), device, took)
    return took
