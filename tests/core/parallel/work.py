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
from longlive.longlive_core.evaluation.verify_training import load_training_model, recorded_batch, recorded_draws
from longlive.longlive_core.parallel import (
    Mesh,
    all_gather,
    all_max,
    all_sum,
    heads_to_tokens,
    make_mesh,
    tokens_to_heads,
)
from longlive.longlive_core.training.ar import ar_step
from longlive.longlive_core.training.ar_inputs import ar_inputs
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.schedule import TimestepTable
from longlive.longlive_core.types import LatentShape
from longlive.longlive_core.vae import VAEConfig, WanVAE
from longlive.longlive_core.vae.encode_ranks import encode_on_ranks
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


def balanced_step(
    mesh: Mesh, _: Path, file: Path, mask: Tensor | None, checkpointing: bool
) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss and gradients of the own share of a recorded step, the flow of all, and the mean gradients of the ranks."""
    recorded, ranks = RecordedRun.load(file), mesh.sequence
    model, batch = load_training_model(recorded), replace(recorded_batch(recorded), mask=mask)
    settings = ARSettings(block_frames=recorded.metadata["run"]["block_frames"], checkpointing=checkpointing)
    with torch.enable_grad():
        inputs = ar_inputs(batch, recorded_draws(recorded), settings, TimestepTable.shifted(settings.shift))
        step = ar_step(model, batch, inputs, settings, ranks)
        step.loss.backward()
    own = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    return step.loss.detach(), step.flow, own, {name: all_sum(g, ranks) / ranks.size for name, g in own.items()}


def encode(mesh: Mesh, _: Path, frames: Tensor, halo: int) -> tuple[Tensor, int]:
    """The latents of a clip that only the first rank has, and how many latent frames this rank encoded."""
    torch.manual_seed(0)
    vae = WanVAE(
        VAEConfig(dim=4, dec_dim=4, latent_channels=4, dim_mult=(1, 2, 2, 2), mean=(0.0,) * 4, std=(1.0,) * 4)
    ).requires_grad_(False)
    shape = LatentShape(1, 4, 2, frames.shape[1] // 16, frames.shape[2] // 16)
    encoded: list[None] = []
    clip = frames if mesh.sequence.rank == 0 else None
    latents = encode_on_ranks(clip, len(frames), vae, shape, mesh.sequence, lambda: encoded.append(None), halo)
    return latents, len(encoded)


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
