"""The ladder of `device.py`: its baseline caches what the reference caches, and an incorrect arm is red."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def ladder(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the part."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return import_module("device_parts.ladder")


def red_arms(ladder: Any) -> list[str]:  # noqa: ANN401
    """Which of the reference's cache and ring slots differ from float32 by more than their tolerance."""
    arms = import_module("device_parts.arms").ARMS
    compiled = partial(ladder.CompiledLayers, tuned=False)
    expected = ladder.film_flows(ladder.EXACT, compiled)
    return [name for name in ("a", "b") if ladder.check(arms[name], lambda: expected, compiled).red]


@pytest.mark.slow
def test_rolled_copies_and_ring_slots_agree(ladder: ModuleType) -> None:
    """The flows of the copy-and-roll cache and of ring slots are within their tolerances."""
    assert red_arms(ladder) == []


@pytest.mark.slow
def test_a_cache_that_evicts_the_wrong_block_is_red(ladder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without its sink is red: once a block is evicted, one block of its window differs."""
    call = import_module("device_parts.rolling_cache").RollingCacheCall
    insert = call._insert

    def sinkless(self: Any, *args: Any) -> None:  # noqa: ANN401
        object.__setattr__(self, "sink", 0)
        insert(self, *args)

    monkeypatch.setattr(call, "_insert", sinkless)
    assert red_arms(ladder) == ["a"]
