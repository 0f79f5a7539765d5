"""Warming up the threads of films when a model is loaded."""

from __future__ import annotations

import logging
from threading import current_thread

import pytest
import torch
from longlive.longlive_core.pipeline import warm_up
from longlive.longlive_core.pipeline.stages import Pipeline
from longlive.longlive_core.pipeline.warm_up import STAGES, first_work, warm_workers
from longlive.longlive_core.pipeline.workers import Workers


def test_a_film_runs_in_the_threads_that_were_warmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage that computes on the GPU gets the thread that did its first work there."""
    warmed: dict[str, int | None] = {}
    monkeypatch.setattr(warm_up, "first_work", lambda _: warmed.update({current_thread().name: current_thread().ident}))
    workers = Workers()
    for ended in warm_workers(workers, torch.device("cuda:0")):
        assert ended.wait(30)
    with Pipeline(workers) as pipeline:
        used = dict(next(pipeline.stage(name, (_this_thread() for _ in range(1)))) for name in STAGES)
    workers.close()
    assert used == warmed and len(used) == 2


def _this_thread() -> tuple[str, int | None]:
    return current_thread().name, current_thread().ident


def test_a_cpu_needs_none() -> None:
    """No thread is started there."""
    assert warm_workers(Workers(), torch.device("cpu")) == ()


def fail(_device: torch.device) -> None:
    raise RuntimeError("out of memory")


def test_the_first_work_runs_and_an_error_of_the_device_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The work computes what it says; where a device fails, the thread lives on and the log says so."""
    with caplog.at_level(logging.WARNING):
        first_work(torch.device("cpu"))
        assert not caplog.records
        monkeypatch.setattr(warm_up, "default_attention", fail)
        first_work(torch.device("cpu"))
    assert [r.message for r in caplog.records] == ["the threads of films were not warmed up on cpu: out of memory"]
