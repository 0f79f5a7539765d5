"""CUDA graphs: work of fixed shapes that is recorded once, and then started by one call."""

from __future__ import annotations

from collections.abc import Callable

import torch

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device, and returns a function that does it again, with the same tensors.

What the function reads on the host, such as a Python number, is what it was when it was recorded. The function has run
once before; recording it changes no tensor.
"""


class CudaCapture:
    """A `Capture` by CUDA graphs, which share the memory of their intermediate tensors: run one at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # PyTorch's own stream for recording is on the GPU that recorded first, and all threads share it.
        self._stream = torch.cuda.Stream(device)
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Capture`. Raises RuntimeError for work that waits for the device."""
        graph = torch.cuda.CUDAGraph()
        # Other threads go on decoding: what they call is no part of the graph, and must not end it.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay


def cuda_capture(device: torch.device) -> Capture | None:
    """CUDA graphs for a device, or None if it has none."""
    return CudaCapture(device) if device.type == "cuda" else None
