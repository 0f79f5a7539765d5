"""Ranks that share the tokens of a block, over gloo: recorded runs, films and bytes are those of one rank."""

from __future__ import annotations

from pathlib import Path

import pytest
from longlive.longlive_core.evaluation.recorded import REFERENCE_RUNS, RecordedRun, golden_folder
from longlive.longlive_core.evaluation.replay import ReplayResult

from .ranks import run_ranks

LIMIT = 5e-6


def recorded_paths(dtype: str) -> list[Path]:
    """The recorded films of a dtype: of the whole set where it is, else of the subset."""
    folder = golden_folder() if golden_folder().is_dir() else REFERENCE_RUNS
    runs = [RecordedRun.load(path) for path in sorted(folder.glob("generate_*.safetensors"))]
    return [run.path for run in runs if run.metadata["run"]["dtype"] == dtype]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_recorded_runs_agree_as_on_one_rank(tmp_path: Path, size: int) -> None:
    """Every recorded float32 film agrees within the limit of one rank, and attends the same frames."""
    paths = recorded_paths("float32")
    results: list[ReplayResult] = run_ranks(size, "replay", tmp_path, paths, False)[0]
    for path, result in zip(paths, results, strict=True):
        attended = RecordedRun.load(path).metadata["attended"]
        assert max(result.output_error, *result.call_errors) <= LIMIT, path
        assert [set(seen) for seen in result.attended] == [set(seen) for seen in attended], path
