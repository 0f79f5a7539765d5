"""`device.py --toy`: every part runs on a CPU and gives its rows, and the section of RESULTS.md is made of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROWS = {
    "ops": ["rms_norm", "to_uint8"],
    "ceilings": ["copy", "attention, ours, 256 keys"],
    "ladder": ["d", "e8", "a", "b", "fh"],
    "films": ["decoder, full", "denoise, bf16, 4 steps", "film, bf16, tiny"],
    "graphs": ["one launch for each op"],
    "memory": ["bf16 weights, bf16 KV, full VAE"],
    "training": ["float32", "bf16", "bf16, checkpointing", "NVFP4"],
}
"""Rows of each part that run on any machine. The part `compiled` needs a C++ compiler."""


@pytest.fixture
def report(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """The module that renders."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return import_module("device_parts.report")


@pytest.mark.slow
def test_every_part_gives_its_rows(root: Path, tmp_path: Path, report: Any) -> None:  # noqa: ANN401
    """No row is red or failed, every part has figures, and each has its table in the section."""
    pytest.importorskip("triton")
    script = root / "tests" / "benchmarks" / "device.py"
    done = subprocess.run(
        [sys.executable, script, "--toy", "--out", tmp_path, "--parts", *ROWS],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads((tmp_path / "device.json").read_text("utf-8"))
    assert result["machine"]["commit"] and result["machine"]["torch"]
    parts = report.rows_of(result)
    assert list(parts) == list(ROWS)
    for part, names in ROWS.items():
        assert [name for name in names if parts[part][name].status != "ok"] == [], parts[part]
    text = report.section(result)
    assert all(f"### {part.title}\n" in text for part in report.PARTS if part.name in ROWS)
    assert "| row | MB | ms, copy |" in text


@pytest.mark.slow
def test_the_computed_table_is_that_of_the_code(root: Path, report: Any) -> None:  # noqa: ANN401
    """RESULTS.md has the computed milliseconds that the code gives, unless it has measured ones beside them."""
    text = (root / "tests" / "benchmarks" / "RESULTS.md").read_text("utf-8")
    lines = [line for line in report.computed({}).split("\n") if line.startswith("|")]
    assert [line for line in lines if line.rstrip("| ") not in text] == []


def test_only_the_section_is_replaced(tmp_path: Path, report: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """What stands before and behind the section stays, and a file without its marks is an error."""
    monkeypatch.setattr(report, "computed", lambda ladder: f"{len(ladder)} arms")
    path = tmp_path / "RESULTS.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    rows = [{"name": "d", "status": "ok", "figures": {"error": 0.5}, "samples": {"ms": [2.0, 4.0]}, "note": ""}]
    machine = {"gpu": "NVIDIA H200", "commit": "abc"}
    parts = {"ladder": {"seconds": 3, "rows": rows}}
    report.write_section({"date": "2026-01-01", "machine": machine, "toy": False, "parts": parts}, path)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith(f"{report.END}\nafter\n") and "old" not in text
    assert "gpu NVIDIA H200, commit abc" in text and "1 arms" in text and "| d | 0.5 | 3 (2.2–3.8) |" in text
    path.write_text("no section\n")
    with pytest.raises(ValueError, match="has no section between"):
        report.write_section(None, path)
