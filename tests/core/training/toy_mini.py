"""A toy run of the stage that trains LongLive Mini: tiny model, random latents. Run as a script, in processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.training.captions import vocabulary
from longlive.longlive_core.training.cast_films import CAST_FILMS
from longlive.longlive_core.training.films import FILMS, OTHER_FRAMES, EncodedFilm, FilmSet, heads
from longlive.longlive_core.training.mini_stage import PARTS, MiniSettings, MiniStage
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from longlive.longlive_core.training.workers import ALONE, Workers, run_workers
from longlive.longlive_core.types import BLOCK_FRAMES
from longlive.longlive_core.vae import VAEConfig
from safetensors.torch import save_file

TINY_VAE = VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)
TINY_DIT = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16, text_dim=16, text_len=48, channels=48)
SETTINGS = TrainerSettings(steps=4, accumulation=PARTS, save_every=100)


def save_tiny(folder: Path) -> Path:
    """Writes a random model like the embedded one, whose predicted flow is not zero as an untrained one's is."""
    mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    mini.save(folder)
    return folder


@cache
def random_films(count: int = 60, of: FilmSet = FILMS) -> tuple[EncodedFilm, ...]:
    """Films with random latents, which are enough to test everything except learning."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).half()

    films: list[EncodedFilm] = []
    for film, shots in (of.make(0, index) for index in range(count)):
        frames = BLOCK_FRAMES * len(shots)
        hero = (random(frames, 2, 2) > 1).half()
        others = random(len(heads(shots)), 3, 48, OTHER_FRAMES, 2, 2)
        films.append(EncodedFilm(film, shots, random(48, frames, 2, 2), hero, others))
    return tuple(films)


def train(
    workers: Workers,
    folder: Path,
    steps: int = SETTINGS.steps,
    should_stop: Callable[[], bool] | None = None,
    save_every: int = SETTINGS.save_every,
) -> Trainer:
    """Trains the toy in a folder."""
    mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
    casts = random_films(10, CAST_FILMS)
    settings = MiniSettings(singles=2, film_blocks=8, warmup=2)
    stage = MiniStage(mini, random_films(), torch.eye(48), settings, casts=casts)
    trainer = Trainer(
        stage, replace(SETTINGS, steps=steps, save_every=save_every), folder, should_stop=should_stop, workers=workers
    )
    trainer.run()
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The weights and the averages of a run."""
    module = trainer.stage.trained[0].module
    averages = {f"average.{name}": value for name, value in trainer.averages["model"].weights.items()}
    return {**{name: p.detach() for name, p in module.named_parameters()}, **averages}


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    if len(sys.argv) > 2:
        # Two processes with a checkpoint after each step, to be killed.
        run_workers(train, 2, out, int(sys.argv[2]), None, 1)
        sys.exit()
    save_file(weights(train(ALONE, out / "one")), out / "one.safetensors")
    save_file(weights(run_workers(train, 2, out / "two")), out / "two.safetensors")
