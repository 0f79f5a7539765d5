"""`longlive train` under torchrun: the processes that train together, and the device of each."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..parallel import device_of, joined, make_mesh
from ..pipeline.stages import format_error
from .console import BAD_INPUT

if TYPE_CHECKING:
    import torch

    from ..training.workers import Workers


@contextmanager
def training_processes(sequence: int, device: torch.device) -> Generator[tuple[Workers, torch.device], None, None]:
    """The processes that torchrun started, or this one alone, and this one's device.

    sequence: how many of them share a film. Raises ValueError if they do not split into such groups.
    """
    import torch
    import torch.distributed as dist

    from ..training.workers import ALONE, Workers

    if not (dist.is_available() and dist.is_torchelastic_launched()):
        if sequence != 1:
            raise ValueError(
                f"--sequence {sequence} needs as many processes, or a multiple: start it with `torchrun "
                f"--nproc-per-node {sequence} -m longlive.longlive_core.cli train …`"
            )
        yield ALONE, device
        return
    from torch.distributed.distributed_c10d import get_node_local_rank

    own = torch.device(device_of(get_node_local_rank())) if device.type == "cuda" else device
    with joined(None, -1, -1, str(own)):
        mesh = make_mesh(sequence, own.type)
        try:
            yield Workers(dist.get_rank(), dist.get_world_size(), mesh.sequence), own
        except Exception as error:
            if dist.get_world_size() == 1:
                raise
            # Leaving the group would wait for ranks that wait for this one; torchrun ends them when this one ends.
            print(f"longlive: rank {dist.get_rank()}: {format_error(error)}", file=sys.stderr, flush=True)
            os._exit(BAD_INPUT)
