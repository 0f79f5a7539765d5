"""The benchmarks follow the code: a renamed function cannot break one unnoticed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# These import tests/comfy as `comfy`, which other tests in this process must not find.
NAMES = sorted({path.stem for path in FOLDER.glob("bench_*.py")} - {"bench_comfy", "bench_player"} | {"device"})


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a benchmark imports exists."""
    monkeypatch.syspath_prepend(FOLDER)
    import_module(name)
