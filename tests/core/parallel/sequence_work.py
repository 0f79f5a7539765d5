"""What ranks do with a sequence, for `test_sequence.py`: run by `work.py`, which has registered the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from longlive.longlive_core.evaluation.recorded import RecordedRun
from longlive.longlive_core.evaluation.replay import ReplayResult, load_model, regenerate
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.memory import MemoryConfig, PoolShape, PoolSpec
from longlive.longlive_core.memory.pools import check_whole, restore_own, whole_tensors
from longlive.longlive_core.mini import Mini, load_mini
from longlive.longlive_core.mini.config import LATENT_SIZE
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.parallel import Leader, Mesh, Ranks, follow
from longlive.longlive_core.sampling import LedModel, RankModel, Snapshot
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.types import BLOCK_FRAMES, FPS
from torch import Tensor

CPU = torch.device("cpu")
SCRIPT = """Shot 1 (2 blocks): a large red circle goes right on a plain blue background
---
Shot 2 (1 block): the circle goes left on a plain blue background"""

RECALLING = """Shot 1 (1 block): a large red circle goes right on a plain blue background
Shot 2 (1 block) @keep=blue: a large blue ring goes left on a plain grey background
Shot 3 (3 blocks): a small green square goes left on a plain grey background
Shot 4 (2 blocks) @recall=blue: the ring goes right on a plain grey background"""


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


def films(mesh: Mesh, folder: Path, made: list[dict[str, Any]], *, go_on: bool = False) -> dict[str, Any]:
    """Films of the embedded model by name, with their snapshots, and the bytes that rank 0 sent for each.

    made: settings of films, each with its name. go_on: from block 2, with the NAME.snapshot beside `folder` of an
    earlier size; it is written otherwise.
    """
    ranks, results = mesh.sequence, dict[str, Any]()
    if ranks.rank:
        follow(ranks)
        return {}
    leader, mini = Leader(ranks), load_mini()
    plan = ShotScript.parse(SCRIPT).plan(FPS, BLOCK_FRAMES)
    for settings in made:
        rest = dict(settings)
        name, memory = rest.pop("name"), MemoryConfig(**rest.pop("memory"))
        sampler = SamplerSettings(LATENT_SIZE, memory, **rest)
        led = None
        if ranks.size > 1:
            led = LedModel(leader, LATENT_SIZE, mini_model(ranks, mini), mini_model)
        before = replace(ranks.traffic)
        generation = sampler.start(led or mini.model, mini.encode_text, plan, pools=led, attention=torch_attention)
        path, blocks = folder.with_name(f"{name}.snapshot"), list[Tensor]()
        if go_on:
            generation.restore(Snapshot.load(path))
        while (block := next(generation, None)) is not None:
            blocks.append(block.latents)
            if block.index == 1 and not go_on:
                generation.snapshot().save(path)
        sent = ranks.traffic.sent - before.sent, ranks.traffic.exchanges - before.exchanges
        results[name] = (torch.cat(blocks, dim=2), sent)
    leader.stop()
    return results


def stored(mesh: Mesh, kv: Tensor) -> dict[str, list[Tensor]]:
    """What the pools of all ranks store of K/V of two blocks, `[2, B, T, H, D]`, by format, and again once restored."""
    shape = PoolShape(1, kv.shape[1], 2, kv.shape[2], kv.shape[3], kv.shape[4], mesh.sequence)
    found = dict[str, list[Tensor]]()
    for name in ("bf16", "fp8", "nvfp4", "q2"):
        pool, other = PoolSpec(name, shape, kv.dtype, "token", count=2).make(CPU)
        for slot, block in enumerate(kv):
            for own in pool.new_block(0, slot):
                own.copy_(block[:, :, mesh.sequence.own(shape.heads)])
            pool.commit(0, slot, clean=True)
        found[name] = [tensor.clone() for tensor in whole_tensors(pool, 2)]
        check_whole(other, found[name], 2)
        restore_own(other, found[name], 2)
        found[f"{name} restored"] = [tensor.clone() for tensor in whole_tensors(other, 2)]
    return found


def recalled(mesh: Mesh, _: Path) -> Tensor | None:
    """A film whose last shot recalls a block that the window no longer holds, `[B, C, F, H, W]`, on rank 0."""
    ranks = mesh.sequence
    if ranks.rank:
        follow(ranks)
        return None
    mini, memory = load_mini(), MemoryConfig(window=32, kv_format="float32")
    sampler = SamplerSettings(LATENT_SIZE, memory, steps=1)
    leader = Leader(ranks)
    led = LedModel(leader, LATENT_SIZE, mini_model(ranks, mini), mini_model) if ranks.size > 1 else None
    plan = ShotScript.parse(RECALLING).plan(FPS, BLOCK_FRAMES)
    film = sampler.start(led or mini.model, mini.encode_text, plan, pools=led, attention=torch_attention)
    latents = torch.cat([block.latents for block in film], dim=2)
    leader.stop()
    return latents


def sequence(
    mesh: Mesh,
    folder: Path,
    paths: list[Path],
    kv: Tensor,
    made: list[dict[str, Any]],
    resumed: list[dict[str, Any]],
) -> dict[str, Any]:
    """All that ranks do with a sequence, in one process group: recorded runs, stored K/V, films, films that go on."""
    return {
        "replayed": replay(mesh, folder, paths, replayed=False) if paths else [],
        "stored": stored(mesh, kv),
        # First, because the films that are made write snapshots of their own.
        "resumed": films(mesh, folder, resumed, go_on=True),
        "made": films(mesh, folder, made),
    }
