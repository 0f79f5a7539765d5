"""How a process on this machine becomes a rank, and why ranks failed."""

from __future__ import annotations

import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch

from .mesh import make_mesh
from .ranks import Ranks

# Between two calls of rank 0 the others wait as long as it takes. That a rank is gone is noticed without a limit.
LIMIT = timedelta(days=365)


def device_of(local: int) -> str:
    """The device of a rank, by its number on this machine. Raises ValueError for a machine with fewer GPUs."""
    count = torch.cuda.device_count()
    if count and local >= count:
        raise ValueError(
            f"this machine has GPUs for {count} of its ranks, not for rank {local}; start {count} or fewer"
        )
    return f"cuda:{local}" if count else "cpu"


@contextmanager
def joined(meeting: str | None, rank: int, size: int, device: str) -> Generator[Ranks, None, None]:
    """Joins the other ranks; collectives use NCCL on GPUs and gloo on CPUs.

    meeting: the URL of a file that all of them name; None where torchrun tells rank and size.
    """
    import torch.distributed as dist

    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=LIMIT)
    try:
        yield make_mesh(dist.get_world_size(), device).sequence
    finally:
        dist.destroy_process_group()


def first_failure(size: int, errors: Mapping[int, str], exit_codes: Sequence[int | None], otherwise: str) -> str:
    """Which rank failed first, and why. errors: of ranks. exit_codes: by rank, None for one that runs."""
    for rank, code in enumerate(exit_codes):
        if code is not None and code < 0:
            return f"rank {rank} of {size} was ended by {signal.Signals(-code).name}"
    # Others fail because their connection to the first one is lost.
    for rank, error in sorted(errors.items(), key=lambda item: "onnection" in item[1]):
        return f"rank {rank} of {size} failed: {error}"
    return otherwise
