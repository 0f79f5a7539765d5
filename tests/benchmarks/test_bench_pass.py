"""The benchmark of a whole pass: what it compares with keeps what the reference keeps, and a wrong arm is not timed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return import_module("bench_pass")


def faults(bench: Any) -> list[str]:  # noqa: ANN401
    """What keeps the reference's cache and ring slots from being timed."""
    return bench.red(bench.compare([bench.ARMS["a"], bench.ARMS["b"]]))


@pytest.mark.slow
def test_rolled_copies_and_ring_slots_show_the_same(bench: ModuleType) -> None:
    assert faults(bench) == []


@pytest.mark.slow
def test_a_cache_that_forgets_the_wrong_block_is_not_timed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its sink: the difference is one block in the window, after the first was forgotten."""
    call = import_module("pass_baselines").CopyRollCall
    join = call._join

    def sinkless(self: Any, *args: Any) -> None:  # noqa: ANN401
        object.__setattr__(self, "sink", 0)
        join(self, *args)

    monkeypatch.setattr(call, "_join", sinkless)
    assert [fault.split(":")[0] for fault in faults(bench)] == ["a"]
