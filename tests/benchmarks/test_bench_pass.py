"""The benchmark of a pass: its baseline caches what the reference caches, and an incorrect arm is not timed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `bench_pass`."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return import_module("bench_pass")


def failures(bench: Any) -> list[str]:  # noqa: ANN401
    """The errors of the reference's cache and of ring slots that are above their tolerances."""
    return bench.failures(bench.compare([bench.ARMS["a"], bench.ARMS["b"]]))


@pytest.mark.slow
def test_rolled_copies_and_ring_slots_agree(bench: ModuleType) -> None:
    """The flows of the copy-and-roll cache and of ring slots are within their tolerances."""
    assert failures(bench) == []


@pytest.mark.slow
def test_a_cache_that_evicts_the_wrong_block_is_not_timed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without its sink fails: once a block is evicted, one block of its window differs."""
    call = import_module("pass_baselines").RollingCacheCall
    insert = call._insert

    def sinkless(self: Any, *args: Any) -> None:  # noqa: ANN401
        object.__setattr__(self, "sink", 0)
        insert(self, *args)

    monkeypatch.setattr(call, "_insert", sinkless)
    assert [failure.split(":")[0] for failure in failures(bench)] == ["a"]
