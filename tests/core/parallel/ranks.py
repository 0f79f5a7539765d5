"""Runs a function of `work.py` in several processes that gloo joins, with a limit on the time they take."""

from __future__ import annotations

import runpy
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import multiprocessing

WORK = Path(__file__).with_name("work.py")
LIMIT_SECONDS = 300


def start_ranks(size: int, task: str, folder: Path, *inputs: Any, file: Path | None = None) -> list[BaseProcess]:  # noqa: ANN401
    """Starts the processes of `run_ranks`."""
    context = multiprocessing.get_context("spawn")
    folder = folder / f"{task}-{size}"
    folder.mkdir()
    ranks = [
        context.Process(
            target=runpy.run_path,
            args=(str(WORK),),
            kwargs={
                "init_globals": {"ARGUMENTS": (rank, size, str(folder), task, inputs, file and str(file))},
                "run_name": "rank",
            },
            daemon=True,
        )
        for rank in range(size)
    ]
    for process in ranks:
        process.start()
    return list(ranks)


def run_ranks(size: int, task: str, folder: Path, *inputs: Any, file: Path | None = None) -> list[Any]:  # noqa: ANN401
    """Returns what the function `task` returns on each rank, called with a mesh, a folder and `inputs`.

    file: where the function is; `work.py` by default.

    Fails with the traceback of a rank that fails. No process is left behind.
    """
    ranks = start_ranks(size, task, folder, *inputs, file=file)
    folder = folder / f"{task}-{size}"
    end = monotonic() + LIMIT_SECONDS
    try:
        for process in ranks:
            process.join(max(0.0, end - monotonic()))
        codes = [process.exitcode for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    errors = [path.read_text() for path in sorted(folder.glob("*.error"))]
    assert not errors and codes == [0] * size, f"exit codes {codes}\n" + "\n".join(errors)
    return [torch.load(folder / f"{rank}.result", weights_only=False) for rank in range(size)]
