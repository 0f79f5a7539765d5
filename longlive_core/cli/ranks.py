"""`--gpus N` and torchrun: processes that share the blocks of a film. Rank 0 is the command, the others follow it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..parallel import SIZES, Leader, device_of, follow, joined
from ..pipeline.decode_device import decode_device
from ..sampling.split import check_split
from .followers import FILM_STAYS, Followers

Run = Callable[[argparse.Namespace], int]


def run_on_ranks(run: Run, args: argparse.Namespace) -> int:
    """Runs a command, on several ranks if it is told to, and returns its exit code.

    Raises ValueError for a number of ranks or a GPU that is not possible here, and RankError, which names the rank that
    failed.
    """
    import torch.distributed as dist

    if not hasattr(args, "gpus"):
        return run(args)
    if args.decode_gpu is not None:
        decode_device(args.decode_gpu)  # before any process starts
    if dist.is_available() and dist.is_torchelastic_launched():
        return _run_in_torchrun(run, args)
    count = 1 if args.gpus is None else args.gpus
    check_count(count)
    if args.split_guidance:
        check_split(count)
    alone = count == 1 or getattr(args, "dry_run", False)
    return run(args) if alone else _run_with_followers(run, args, count)


def check_count(count: int, devices: int | None = None, option: str = "--gpus") -> None:
    """Raises ValueError, which names the nearest number, for a number of ranks that no model can have.

    devices: of this machine, by default as many GPUs as it has; 0 for the CPU, which any number shares. option: that
    gives the number.
    """
    devices = torch.cuda.device_count() if devices is None else devices
    allowed = [size for size in SIZES if size <= (devices or max(SIZES))]
    if count not in allowed:
        nearest = min(allowed, key=lambda size: (abs(size - count), size))
        has = f", of which this machine has {devices}" if devices else ""
        raise ValueError(
            f"{option} {count}: the numbers of GPUs allowed are {', '.join(map(str, SIZES))}{has}; use {nearest}"
        )


def check_own_processes(count: int, option: str) -> None:
    """Raises ValueError for a number of processes that `led_ranks` cannot start, and under torchrun for several."""
    import torch.distributed as dist

    check_count(count, option=option)
    if count > 1 and dist.is_available() and dist.is_torchelastic_launched():
        raise ValueError(f"{option} {count} starts processes itself: start longlive without torchrun, or leave it out")


@contextmanager
def led_ranks(count: int, threads: int | None, stays: str = FILM_STAYS) -> Generator[Leader, None, None]:
    """Starts the other ranks, which follow the leader; when it is left none of them is there any more.

    threads: of each on the CPU; None shares them. stays: what is kept after an error, for its message. Raises
    RankError, which names the rank that failed.
    """
    device, before = device_of(0), torch.get_num_threads()
    if threads is None and device == "cpu":
        threads = max(1, before // count)
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        with Followers(meeting, count, threads, stays) as followers, joined(meeting, 0, count, device) as ranks:
            followers.leader = leader = Leader(ranks)
            try:
                yield leader
            except Exception as error:
                if leader.failure is not None:
                    raise followers.reason(leader.failure) from error
                raise
            finally:
                torch.set_num_threads(before)
                followers.expect_end()
                leader.stop()


def _run_with_followers(run: Run, args: argparse.Namespace, count: int) -> int:
    with led_ranks(count, args.threads) as args.leader:
        return run(args)


def _run_in_torchrun(run: Run, args: argparse.Namespace) -> int:
    """Runs the command on rank 0 of the processes that torchrun started, and follows it on the others."""
    from torch.distributed.distributed_c10d import get_node_local_rank

    with joined(None, -1, -1, device_of(get_node_local_rank())) as ranks:
        check_count(ranks.size, devices=0)
        if args.gpus not in (None, ranks.size):
            raise ValueError(f"--gpus {args.gpus}: torchrun started {ranks.size} processes; leave --gpus out")
        if ranks.size == 1:
            return run(args)
        if ranks.rank:
            follow(ranks)
            return 0
        args.leader = leader = Leader(ranks)
        try:
            return run(args)
        finally:
            leader.stop()  # lets the others go, also after an error that is not theirs
