"""Films that ranks render, from a script to a take, for `test_rank_films.py`; run by `work.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.parallel import Leader, Mesh, Ranks, all_gather, follow
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.sampling import RankModel, SplitModel
from longlive.longlive_core.sampling.split import LazyPrompt
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.history import read_blocks
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """A film to render: a new one, or the take beside `output` if it is there.

    settings: by name. blocks: after which it is stopped, if it is. split: whether guidance has ranks for each branch.
    """

    script: Path
    output: Path
    settings: dict[str, Any]
    blocks: int | None = None
    split: bool = False


def render(mesh: Mesh, _: Path, runs: list[dict[str, Any]]) -> list[Tensor]:
    """The latents of the films that rank 0 leads, `[1, C, F, H, W]` each. runs: arguments of `Run`."""
    ranks = mesh.sequence
    if ranks.rank:
        follow(ranks)
        return []
    leader = Leader(ranks)
    films = [rendered(Run(**run), leader) for run in runs]
    leader.stop()
    return films


def rendered(run: Run, leader: Leader | None = None) -> Tensor:
    """The latents of a film, `[1, C, F, H, W]`."""
    folder = run.output.with_suffix(".take")
    if folder.exists():
        settings = RenderSettings.resumed(folder, split_guidance=run.split)
    else:
        settings = RenderSettings.of(run.script, run.output, run.settings, split_guidance=run.split)

    def should_stop() -> bool:
        return run.blocks is not None and len(list(folder.glob("shots/*/*/block_*.safetensors"))) >= run.blocks

    assert Job(settings, leader=leader, should_stop=should_stop).run() == (run.blocks is None)
    return torch.cat([block.latents for block, _ in read_blocks(Take.load(folder))], dim=2)


class TinyModel(RankModel):
    """A random model."""

    def __init__(self, _: Ranks) -> None:
        config = WanConfig(dim=64, ffn_dim=64, num_heads=2, num_layers=1, freq_dim=32, text_dim=16, text_len=4)
        model = CausalWan(config)
        model.init_weights()
        super().__init__(model.requires_grad_(False), torch_attention)


def held(ranks: Ranks, *things: Any) -> Tensor:  # noqa: ANN401
    """By rank, the bytes of pools, and the layers of prompts that are computed."""
    pools = [pool for pool in things if not isinstance(pool, LazyPrompt)]
    tensors = [tensor for pool in pools for tensor in pool.tensors(pool.shape.slots)]
    layers = [len(prompt._layers) for prompt in things if isinstance(prompt, LazyPrompt)]
    found = torch.tensor([[sum(t.nbytes for t in tensors if t.device.type != "meta"), *layers]])
    return all_gather(found, ranks, 0, ranks.size)


def branches(mesh: Mesh, _: Path) -> tuple[Tensor, int]:
    """What ranks hold for a film with guidance, see `held`, and the exchanges between the branches, on rank 0."""
    if mesh.sequence.rank:
        follow(mesh.sequence)
        return torch.empty(0), 0
    leader = Leader(mesh.sequence)
    led, shots = SplitModel(leader, (4, 4), TinyModel(mesh.sequence), TinyModel), "Shot 1 (2 blocks): a"
    film = SamplerSettings((4, 4), MemoryConfig(kv_format="float32"), steps=3, guidance=2.0, negative="b").start(
        led, lambda text: torch.full((2, 16), float(len(text))), ShotScript.parse(shots).plan(), pools=led
    )
    assert len(list(film)) == 2
    prompts = [film._cache._prompts.kv(prompt).layers for prompt in "ab"]
    result = leader.call(held, *film._cache._pools, *prompts), led._branch.mesh.data.traffic.exchanges
    leader.stop()
    return result
