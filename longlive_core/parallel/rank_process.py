"""What the process of a rank does that `RankProcesses` started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from .join import device_of, joined
from .link import Leader, follow
from .remote import serve


def run_rank(
    rank: int,
    size: int,
    meeting: str,
    device: str,
    threads: int | None,
    errors: Connection,
    commands: Connection | None,
) -> None:
    """Serves the pipe of rank 0, or follows rank 0; never returns.

    device: cpu, or cuda for a GPU each. threads: on the CPU. errors: gets the error that ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with joined(meeting, rank, size, device_of(rank) if device == "cuda" else device) as ranks:
            _work(Leader(ranks), commands, errors)
    except Exception as error:
        _end(error, errors)


def _work(leader: Leader, commands: Connection | None, errors: Connection) -> None:
    try:
        if commands is None:
            follow(leader.ranks)
        else:
            serve(leader, commands)
    except Exception as error:
        _end(error, errors)  # here, because NCCL would wait for ranks that are gone when it is left


def _end(error: Exception, errors: Connection) -> None:
    with suppress(OSError):  # there is nobody to tell
        errors.send(" ".join(str(error).split()) or type(error).__name__)
    os._exit(1)
