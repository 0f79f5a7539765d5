"""Films of six small blocks in five shots, their takes, and helpers for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.live_script import LiveScript
from longlive.longlive_core.film.sampler_settings import StartGeneration
from longlive.longlive_core.film.take_store import TakeStore
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take, retake
from longlive.longlive_core.take.history import read_blocks
from longlive.longlive_core.take.retake import Mode
from longlive.longlive_core.types import Block
from longlive.longlive_core.vae import VAEConfig
from safetensors.torch import load_file

SCRIPT = """\
thing: the hero
Shot 1 (2 blocks): {thing}
Shot 2 (1 block): the other
Shot 3 (1 block): {thing} @seed=4
Shot 4 (1 block): the other
Shot 5 (1 block): the hero
"""
BLOCKS = 6
MODEL = WanConfig(dim=48, ffn_dim=96, num_heads=2, num_layers=1, freq_dim=32, text_dim=32, text_len=16)
VAE = VAEConfig(dim=4, dec_dim=4, num_res_blocks=1, mean=(0.0,) * 48, std=(1.0,) * 48)


def make_mini() -> Mini:
    mini = Mini.random(0, ["the", "hero", "other"], MODEL, VAE)
    # An untrained head predicts no flow at all, and every film would be its noise.
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return mini


def make_settings(folder: Path) -> RenderSettings:
    (folder / "script.txt").write_text(SCRIPT)
    return RenderSettings(folder / "script.txt", folder / "film.mp4", size="32x32", steps=2)


def make_take(mini: Mini, settings: RenderSettings) -> Take:
    """A whole film's."""
    job = Job(settings, mini=mini)
    assert job.run() and job.take is not None
    return job.take


def after(calls: int) -> Callable[[], bool]:
    """A question that is answered yes from the `calls`-th time on."""
    answers = iter([False] * calls)
    return lambda: next(answers, True)


def latents(take: Take) -> list[torch.Tensor]:
    """The film's blocks as chosen, straight from the files, and independent of them."""
    return [load_file(take.path(spec))["latents"].clone() for spec in take.plan.blocks]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]


def resume(take: Take, mini: Mini) -> tuple[Job, list[str]]:
    """Resumes the film; returns the job and its notes."""
    notes: list[str] = []
    job = Job(RenderSettings.resumed(take.folder), mini=mini, on_note=notes.append)
    assert job.run()
    assert not list(take.partial_files())
    return job, notes


def remade(take: Take, mini: Mini, number: int, mode: Mode, **change: object) -> Job:
    changed = retake(take, number, mode=mode, **change)  # type: ignore[arg-type]
    job = Job(RenderSettings.resumed(take.folder), take=changed.take, mini=mini)
    assert job.run()
    return job


def stored_film(film: Film, take: Take, live: LiveScript | None = None) -> Film:
    """A film whose blocks a take stores as well."""
    return Film(film.plan, None, TakeStore(take, live=live), earlier=film)


def take_film(take: Take, start_generation: StartGeneration) -> Film:
    """The film of a take as chosen."""
    return Film(take.plan, start_generation, TakeStore(take))


def stored_blocks(take: Take) -> tuple[Block, ...]:
    """The take's first blocks, read and checked, up to the first that is missing."""
    return tuple(block for block, _ in read_blocks(take))
