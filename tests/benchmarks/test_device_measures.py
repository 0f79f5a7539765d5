"""How `device.py` measures: order, poison, and what a table shows."""

from __future__ import annotations

from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.kernels import OPS


@pytest.fixture
def device(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """The modules of the parts, by name."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return lambda name: import_module(f"device_parts.{name}")


def test_a_steady_drift_favours_no_run(device: Any) -> None:  # noqa: ANN401
    """Runs are measured in order and in reverse order, so that a clock that slows down gives all the same mean."""
    called: list[str] = []
    runs = {name: lambda name=name: called.append(name) for name in "abc"}
    slower = count(10)

    def measure(run: Any) -> float:  # noqa: ANN401
        run()
        return float(next(slower))

    samples = device("timing").abba(runs, measure, rounds=2, warm_ups=1)
    assert "".join(called) == "abc" + 2 * "abccba"
    assert {sum(values) / len(values) for values in samples.values()} == {15.5}


def test_arms_are_visited_in_groups(device: Any) -> None:  # noqa: ANN401
    """Each group goes there and back before the next one begins, so that the first arms are whole if time runs out."""
    assert "".join(device("timing").abba_order("abcde", 2)) == "abbacddcee"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.int64])
def test_memory_to_be_written_is_poisoned(device: Any, dtype: torch.dtype) -> None:  # noqa: ANN401
    """New tensors and results of an earlier run hold NaN, or a number that no result is likely to have throughout."""
    poison = device("poison")
    with poison.poisoned_allocations():
        new = torch.empty(8, dtype=dtype)
    old = torch.zeros(8, dtype=dtype)
    poison.poison([old])
    for tensor in (new, old):
        values = tensor.float()
        assert bool(values.isnan().all()) or bool((values > 100).all())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("fault", ["hole", "wrong", "error"])
def test_an_op_that_is_wrong_is_red(device: Any, fault: str) -> None:  # noqa: ANN401
    """A result that is off, that leaves out an element in new or given memory, or an error of Triton's is red."""
    ops, cases = device("ops"), device("kernel_cases").CASES

    class Theirs:
        @staticmethod
        def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
            right = ops.eager.rms_norm(x, weight, eps)
            if fault == "error":
                raise RuntimeError("no kernel image")
            if fault == "wrong":
                return right * 1.01
            out = torch.empty_like(right)
            out[:, 1:] = right[:, 1:]
            return out

    case = cases["rms_norm"](ops.TOY)
    good = ops.compare(case, {ops.EAGER: ops.eager, ops.OURS: ops.eager})
    bad = ops.compare(case, {ops.EAGER: ops.eager, ops.OURS: Theirs})
    assert ops.fault(good) == "" and ops.fault(bad).startswith("Triton: ")


def test_every_op_is_measured(device: Any) -> None:  # noqa: ANN401
    """Each op of `kernels` has a case, and no case is of an op that is not there."""
    names = {name.split()[0] for name in device("kernel_cases").CASES}
    assert names == {op.name for op in OPS}


def test_an_error_or_a_wrong_result_is_told_in_its_row(device: Any) -> None:  # noqa: ANN401
    """A task that raises has a failed row with the message; a wrong result has a red one. Neither is timed further."""
    part = device("part")

    def fails() -> Any:  # noqa: ANN401
        raise RuntimeError("out of\nmemory")

    def skips() -> Any:  # noqa: ANN401
        raise part.Skipped("no FP8 units")

    rows = [part.Row.of(part.Task("x", run)) for run in (fails, skips, lambda: part.Found(red="off by 2"))]
    assert [(row.status, row.note) for row in rows] == [
        ("failed", "RuntimeError: out of memory"),
        ("skipped", "no FP8 units"),
        ("red", "off by 2"),
    ]
    assert not any(row.timed for row in rows)


def test_rows_of_one_name_keep_the_worse_status_and_all_samples(device: Any) -> None:  # noqa: ANN401
    """Two visits of an arm are one row."""
    part = device("part")
    first = part.Row("d", "ok", {"error": 0.1}, {"ms": [1.0]})
    second = part.Row("d", "failed", {}, {"ms": [2.0]}, "took more than 40 s")
    merged = part.merge([first, second])["d"]
    assert (merged.status, merged.samples, merged.figures) == ("failed", {"ms": [1.0, 2.0]}, {"error": 0.1})


def test_numbers_have_three_digits(device: Any) -> None:  # noqa: ANN401
    """Tables are readable: no exponent where none is needed."""
    number = device("tables").number
    assert [number(x) for x in (0.0, 1.2345, 12345.6, 0.0123, 2.9e-5)] == ["0", "1.23", "12,346", "0.0123", "2.9e-05"]


def test_a_plan_that_is_too_small_is_red(device: Any) -> None:  # noqa: ANN401
    """A peak above the plan, or far below it, is red."""
    verdict = device("memory").verdict
    assert verdict(100, 100) == "" and verdict(110, 100) != "" and verdict(60, 100) != ""
