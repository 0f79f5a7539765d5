"""`--gpus N` and torchrun: processes that share the blocks of a film. Rank 0 is the command, the others follow it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from ..parallel import SIZES, Leader, Ranks, device_of, follow, joined
from ..pipeline.decode_device import decode_device
from ..sampling.split import check_split
from .followers import Followers

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


def check_count(count: int, devices: int | None = None) -> None:
    """Raises ValueError, which names the nearest number, for a number of ranks that no model can have.

    devices: of this machine, by default as many GPUs as it has; 0 for the CPU, which any number shares.
    """
    devices = torch.cuda.device_count() if devices is None else devices
    allowed = [size for size in SIZES if size <= (devices or max(SIZES))]
    if count not in allowed:
        nearest = min(allowed, key=lambda size: (abs(size - count), size))
        has = f", of which this machine has {devices}" if devices else ""
        raise ValueError(
            f"--gpus {count}: the numbers of GPUs allowed are {', '.join(map(str, SIZES))}{has}; use {nearest}"
        )


def _run_with_followers(run: Run, args: argparse.Namespace, count: int) -> int:
    """Starts the other ranks and runs the command; at the end none of them is left."""
    device, threads = device_of(0), args.threads
    if threads is None and device == "cpu":
        threads = max(1, torch.get_num_threads() // count)
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        with Followers(meeting, count, threads) as followers, joined(meeting, 0, count, device) as ranks:
            return _lead(run, args, ranks, followers)


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
        return _lead(run, args, ranks, None)


def _lead(run: Run, args: argparse.Namespace, ranks: Ranks, followers: Followers | None) -> int:
    """Runs the command on rank 0, and lets the others go at its end, also after an error that is not theirs."""
    args.leader = leader = Leader(ranks)
    if followers is not None:
        followers.leader = leader
    try:
        return run(args)
    except Exception as error:
        if followers is not None and leader.failure is not None:
            raise followers.reason(leader.failure) from error
        raise
    finally:
        if followers is not None:
            followers.expect_end()
        leader.stop()
