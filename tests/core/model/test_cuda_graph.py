"""CUDA graphs without a GPU: where they are recorded."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch
from longlive.longlive_core.model.cuda_graph import CudaCapture


def test_each_gpu_records_in_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of another GPU records there, and not in the stream in which the sampler recorded before it.

    A stream of another GPU would record nothing, and the film would stand still.
    """
    recorded = list[tuple[str, ...]]()
    current = list[str]()

    @contextmanager
    def on(device: torch.device) -> Generator[None, None, None]:
        current.append(str(device))
        yield
        current.pop()

    @contextmanager
    def graph(_: object, *, stream: str = "the shared one", **__: object) -> Generator[None, None, None]:
        recorded.append((current[-1], stream))
        yield

    class Graph:
        def replay(self) -> None: ...

    for name, value in {"device": on, "graph": graph, "CUDAGraph": Graph}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a stream of {device}")
    for name in ("cuda:0", "cuda:1"):
        CudaCapture(torch.device(name))(lambda: None)
    assert recorded == [(name, f"a stream of {name}") for name in ("cuda:0", "cuda:1")]
