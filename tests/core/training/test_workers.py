"""Processes that train together."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from longlive.longlive_core.training.workers import Workers, run_workers


@pytest.mark.slow
def test_a_process_that_cannot_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process does not wait for one that ends before it has joined: the error comes at once."""
    module = ModuleType("only_here")

    def target(workers: Workers) -> int:
        return workers.count

    target.__module__, target.__qualname__ = module.__name__, "target"
    vars(module)["target"] = target
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert run_workers(target, 1) == 1
    with pytest.raises(RuntimeError, match="a training process ended with exit code 1 before it began"):
        run_workers(target, 2)
