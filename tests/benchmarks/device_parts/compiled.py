"""The pass and the ops through torch.compile, which is what plain PyTorch reaches without kernels of its own.

A part of its own, and the last: choosing among kernels takes minutes. Without CUDA graphs are made and run as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from longlive.kernels import eager

from . import ops
from .arms import COMPILED
from .compiled_layers import compile_options
from .kernel_cases import CASES
from .ladder import arm_tasks
from .op_case import FIVE_B, TOY
from .part import Task
from .timing import ColdTimer

TOY_OPS = ("rms_norm", "gelu_tanh")


class CompiledOps:
    """The eager ops through torch.compile, each compiled on first use."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = torch.compile(getattr(eager, name), dynamic=False, **compile_options(tuned=True))
        setattr(self, name, op)
        return op


def tasks(toy: bool) -> list[Task]:
    """The arms, then every op: its comparison and its times."""
    found = arm_tasks(COMPILED, toy)
    backends = {ops.EAGER: eager, ops.COMPILED: CompiledOps()}
    size, rounds, timer = TOY if toy else FIVE_B, 1 if toy else ops.ROUNDS, cache(ColdTimer)
    for name in TOY_OPS if toy else CASES:
        found.append(Task(name, partial(ops.check, name, size, backends)))
        found.append(Task(name, lambda name=name: ops.time(name, size, backends, timer(), rounds)))
    return found
