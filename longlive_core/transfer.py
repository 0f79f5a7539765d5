"""Copies between the host and a GPU for which neither waits: they go on in the CUDA stream of the caller.

Only page-locked memory is copied so. A copy from or to other memory blocks the host until the stream has done all its
work, and the GPU then has none until the host has queued more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ASYNCHRONOUS = ("cuda",)
"""Types of devices whose copies go on beside the host; all others copy at once."""


@dataclass(frozen=True)
class HostCopy:
    """A tensor in host memory, whose copy from the device ends at the event `ready`; see `to_host`.

    ready: None if there is nothing to wait for.
    """

    tensor: Tensor
    ready: torch.cuda.Event | None

    def wait(self) -> Tensor:
        """Waits for the copy and returns the tensor. Any thread may call it."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.tensor

    def wait_pageable(self) -> Tensor:
        """As `wait`, in memory that is not page-locked, for a tensor that is kept."""
        return self.wait() if self.ready is None else self.wait().clone()


def to_host(x: Tensor) -> HostCopy:
    """Starts a copy of x to the host in the current CUDA stream. A tensor on the CPU is not copied."""
    if x.device.type not in ASYNCHRONOUS:
        return HostCopy(x.cpu(), None)
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    return HostCopy(host, _end_of_work(x.device))


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Returns x on the device; from the host it is copied in the current CUDA stream, which the host does not wait for.

    The caller may change x at once.
    """
    if x.device.type != "cpu" or device.type not in ASYNCHRONOUS:
        return x.to(device)
    # `pin_memory` would return a pinned x itself, which the caller could change before it is copied.
    staged = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    return staged.copy_(x).to(device, non_blocking=True)


def _end_of_work(device: torch.device) -> torch.cuda.Event:
    """An event at the end of what is queued in the current CUDA stream."""
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event
