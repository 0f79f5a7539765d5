"""What a rank of a test does. Run by `ranks.run_ranks` in a process of its own, never imported by a test."""

from __future__ import annotations

import runpy
import sys
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

if "longlive" not in sys.modules:
    package = ModuleType("longlive")
    package.__path__ = [str(Path(__file__).resolve().parents[3])]
    sys.modules["longlive"] = package

import torch
import torch.distributed as dist
from longlive.longlive_core.evaluation.recorded import RecordedRun
from longlive.longlive_core.evaluation.replay import ReplayResult, load_model, regenerate
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.mini import Mini, load_mini
from longlive.longlive_core.mini.config import LATENT_SIZE
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.parallel import (
    Leader,
    Mesh,
    Ranks,
    all_gather,
    all_max,
    follow,
    heads_to_tokens,
    make_mesh,
    tokens_to_heads,
)
from longlive.longlive_core.sampling import LedModel, RankModel, Snapshot
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.types import BLOCK_FRAMES, FPS
from torch import Tensor

SCRIPT = """Shot 1 (2 blocks): a large red circle moves right on a plain blue background
---
Shot 2 (2 blocks): the circle moves left on a plain blue background"""


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


def recorded_model(_: Ranks, path: Path) -> RankModel:
    """The model of a recorded run."""
    return RankModel(load_model(RecordedRun.load(path)), torch_attention)


def replay(mesh: Mesh, _: Path, paths: list[Path], replayed: bool) -> list[ReplayResult]:
    """Generates recorded films again, led by rank 0, whose results these are."""
    ranks = mesh.sequence
    if ranks.rank:
        follow(ranks)
        return []
    leader, results = Leader(ranks), list[ReplayResult]()
    for path in paths:
        recorded = RecordedRun.load(path)
        size = tuple(recorded.tensors["noise"].shape[-2:])
        led = LedModel(leader, size, recorded_model(ranks, path), recorded_model, path)
        results.append(regenerate(recorded, replay=replayed, led=led))
    leader.stop()
    return results


def mini_model(ranks: Ranks, mini: Mini | None = None) -> RankModel:
    """The embedded model."""
    del ranks
    return RankModel((mini or load_mini()).model, torch_attention)


def films(mesh: Mesh, folder: Path, made: list[dict[str, Any]], resumed: list[str]) -> dict[str, Any]:
    """Films of the embedded model by name, with their snapshots, and the bytes that rank 0 sent for each.

    made: settings of films, each with its name. A film named in `resumed` continues from NAME.snapshot beside `folder`;
    the others write it into `folder`, before block 2.
    """
    ranks, results = mesh.sequence, dict[str, Any]()
    if ranks.rank:
        follow(ranks)
        return {}
    leader, mini = Leader(ranks), load_mini()
    plan = ShotScript.parse(SCRIPT).plan(FPS, BLOCK_FRAMES)
    for settings in made:
        name = settings.pop("name")
        resume = name in resumed
        memory = MemoryConfig(**settings.pop("memory"))
        sampler = SamplerSettings(LATENT_SIZE, memory, **settings)
        led = None
        if ranks.size > 1:
            led = LedModel(leader, LATENT_SIZE, mini_model(ranks, mini), mini_model)
        before = replace(ranks.traffic)
        generation = sampler.start(led or mini.model, mini.encode_text, plan, pools=led, attention=torch_attention)
        path, blocks = folder.parent / f"{name}.snapshot", list[Tensor]()
        if resume:
            generation.restore(Snapshot.load(path))
        while (block := next(generation, None)) is not None:
            blocks.append(block.latents)
            if block.index == 1 and not resume:
                generation.snapshot().save(folder / path.name)
        sent = ranks.traffic.sent - before.sent, ranks.traffic.exchanges - before.exchanges
        results[name] = (torch.cat(blocks, dim=2), sent)
    leader.stop()
    return results


def main(rank: int, size: int, folder: str, task: str, inputs: tuple[Any, ...], file: str | None) -> None:
    """Joins the other ranks, runs the task and stores its result, or the traceback of its error.

    file: of the task; None is this one.
    """
    torch.set_num_threads(1)
    path = Path(folder)
    try:
        store = f"file://{path}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=120))
        tasks = globals() if file is None else runpy.run_path(file)
        result = tasks[task](make_mesh(size), path, *inputs)
        torch.save(result, path / f"{rank}.result")
        dist.barrier()
    except BaseException:
        (path / f"{rank}.error").write_text(f"rank {rank}: {traceback.format_exc()}")
        raise
    dist.destroy_process_group()


if __name__ == "rank":
    main(*globals()["ARGUMENTS"])
