"""What a rank of a test does. Run by `ranks.run_ranks` in a process of its own, never imported by a test."""

from __future__ import annotations

import sys
import traceback
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

if "longlive" not in sys.modules:
    package = ModuleType("longlive")
    package.__path__ = [str(Path(__file__).resolve().parents[3])]
    sys.modules["longlive"] = package

import torch
import torch.distributed as dist
from longlive.longlive_core.parallel import Mesh, all_gather, all_max, heads_to_tokens, make_mesh, tokens_to_heads
from torch import Tensor


def exchange(mesh: Mesh, _: Path, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The own heads, the own tokens again, and the gradient of a sum over the heads with weights, of own tokens."""
    ranks = mesh.sequence
    own = x[:, ranks.own(x.shape[1])].clone().requires_grad_()
    heads = tokens_to_heads(own, ranks, x.shape[1])
    back = heads_to_tokens(heads, ranks, x.shape[2])
    (heads * weight[:, :, ranks.own(x.shape[2])]).sum().backward()
    assert own.grad is not None
    return heads.detach(), back.detach(), own.grad


def gather(mesh: Mesh, _: Path, *whole: Tensor) -> list[Tensor]:
    """Each tensor, of which every rank has a share of dimension 1, gathered."""
    ranks = mesh.sequence
    return [all_gather(x[:, ranks.own(x.shape[1])], ranks, 1, x.shape[1]) for x in whole]


def largest(mesh: Mesh, _: Path, x: Tensor) -> Tensor:
    """The largest of all ranks' numbers, of which rank r has row r."""
    return all_max(x[mesh.sequence.rank], mesh.sequence)


def places(_: Mesh, __: Path, sequence: int) -> tuple[int, int, int, int]:
    """Size and rank of both dimensions of a mesh whose sequences have `sequence` ranks."""
    mesh = make_mesh(sequence)
    return mesh.data.size, mesh.data.rank, mesh.sequence.size, mesh.sequence.rank


def main(rank: int, size: int, folder: str, task: str, inputs: tuple[Any, ...], file: str | None) -> None:
    """Joins the other ranks, runs the task and stores its result, or the traceback of its error.

    file: the module of the task; None is this one.
    """
    torch.set_num_threads(1)
    path = Path(folder)
    try:
        store = f"file://{path}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=120))
        # A module, because ranks send each other functions by name.
        sys.path.append(str(Path(file or __file__).parent))
        tasks = globals() if file is None else vars(import_module(Path(file).stem))
        result = tasks[task](make_mesh(size), path, *inputs)
        torch.save(result, path / f"{rank}.result")
        dist.barrier()
    except BaseException:
        (path / f"{rank}.error").write_text(f"rank {rank}: {traceback.format_exc()}")
        raise
    dist.destroy_process_group()


if __name__ == "rank":
    main(*globals()["ARGUMENTS"])
