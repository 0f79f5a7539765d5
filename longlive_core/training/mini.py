"""Training of LongLive Mini: VAE, films, transformer and text encoder, decoder. `longlive train mini` runs it.

OUT/transformer.safetensors …   the three files that `load_mini` reads
OUT/vae/images/ …               checkpoints, log and plot of each phase of the VAE
OUT/start/                      the model before training of the transformer, and the decoder's metric
OUT/films/                      the encoded films, unless they are kept elsewhere
OUT/transformer/                checkpoints, log and plot of the transformer
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..mini import FILES, VAE_FILE, Mini, load_mini, load_vae
from ..model.nvfp4_products import NVFP4Settings
from ..vae import WanVAE
from .captions import vocabulary
from .cast_films import CAST_FILMS
from .counterfactual import decoder_metric
from .films import encode_films, load_films
from .gates import ShapeReader, shape_gates
from .log import TrainingProgress
from .mini_stage import PARTS, MiniSettings, MiniStage
from .settings import VAERun
from .stage import Stage
from .trainer import Trainer
from .trainer_settings import TrainerSettings
from .vae import finetune_decoder, train_vae
from .workers import Workers, run_workers

METRIC_FILE = "metric.safetensors"


@dataclass(frozen=True)
class MiniRun:
    """One run of `train_mini`, whose files are in `folder`.

    shipped_vae: take the VAE that comes with the program instead of training one. vae: folder of a VAE that
    `longlive train vae` made, to take instead. from_mini: start from the
    transformer and text encoder that come with the program instead of random weights; needs their VAE too. films:
    number of films of one hero. casts: number of films of several heroes. data:
    folder of the encoded films. lr: learning rate of the transformer after its warm-up. nvfp4: train weights,
    activations and memory for NVFP4. processes: each of one thread if there are two or more. batch: factor of the size
    of batches. Raises ValueError for settings that contradict each other.
    """

    folder: Path
    seed: int = 0
    shipped_vae: bool = False
    vae: Path | None = None
    from_mini: bool = False
    films: int = 2000
    casts: int = 0
    data: Path | None = None
    steps: int = 30_000
    lr: float = 1e-3
    nvfp4: bool = False
    processes: int = 1
    device: str = "cpu"
    batch: int = 1
    save_every: int = 200
    gate_every: int = 2000
    gate_films: int = 16

    def __post_init__(self) -> None:
        if self.from_mini and not self.shipped_vae:
            raise ValueError("the shipped transformer needs the shipped VAE: train with both, or with neither")
        if self.shipped_vae and self.vae is not None:
            raise ValueError(f"a run has one VAE: the shipped one or that of {self.vae}")
        if self.processes > 1 and self.device != "cpu":
            raise ValueError(f"{self.processes} processes train on the CPU only; use one on {self.device}")
        if min(self.films, self.steps, self.processes, self.batch) < 1:
            raise ValueError("films, steps, processes and batch must be 1 or more")
        if self.casts < 0:
            raise ValueError(f"the number of films of several heroes is {self.casts}; it must be 0 or more")
        if not 0 < self.lr <= 1:
            raise ValueError(f"the learning rate {self.lr:g} must be above 0 and at most 1; 0.001 is a common value")

    @property
    def given_vae(self) -> bool:
        """Whether the VAE is there before the run, with a decoder that is trained."""
        return self.shipped_vae or self.vae is not None

    @property
    def vae_folder(self) -> Path:
        """Folder of the phases of the VAE's training."""
        return self.folder / "vae"

    @property
    def data_folder(self) -> Path:
        """Folder of the encoded films."""
        return self.folder / "films" if self.data is None else self.data


@dataclass(frozen=True)
class Hooks:
    """Callbacks of a run. read: reads shapes from frames, for the gates; without it no gates are measured."""

    log: Callable[[str], None]
    on_progress: Callable[[TrainingProgress], None] | None = None
    should_stop: Callable[[], bool] | None = None
    read: ShapeReader | None = None


def train_mini(run: MiniRun, hooks: Hooks) -> Mini | None:
    """Trains LongLive Mini and writes its three files to `run.folder`; returns None if it was stopped.

    A step depends on the seed and its number only, and a second call with the same settings resumes a run.
    """
    if not encode_data(run, hooks):
        return None
    mini = run_workers(_train_transformer, run.processes, run, own=(hooks,))
    if mini is None:
        return None
    if not run.given_vae and not finetune_decoder(mini.vae, VAERun(run.seed), run.vae_folder, partial(_train, hooks)):
        return None
    mini.save(run.folder)
    count = sum(p.numel() for module in mini.modules for p in module.parameters())
    hooks.log(f"wrote {run.folder}: {count:,} weights")
    return mini


def encode_data(run: MiniRun, hooks: Hooks) -> bool:
    """Encodes the films of a run, and trains the VAE if there is none yet; returns False if it was stopped."""
    return prepare(run, hooks) is not None and run_workers(_encode, run.processes, run, own=(hooks,))


def prepare(run: MiniRun, hooks: Hooks) -> Mini | None:
    """Returns the model before training of the transformer, from `folder/start` if that exists; None if stopped."""
    folder = run.folder / "start"
    if not all((folder / f"{name}.safetensors").is_file() for name in FILES):
        if run.from_mini:
            mini = load_mini()
        else:
            vae = _start_vae(run, hooks)
            if vae is None:
                return None
            mini = Mini.random(run.seed, vocabulary(), vae=vae.config)
            mini.vae.load_state_dict(vae.state_dict())
        mini.save(folder, torch.float32)
    return load_mini(folder)


def _start_vae(run: MiniRun, hooks: Hooks) -> WanVAE | None:
    if run.vae is not None:
        if not (run.vae / VAE_FILE).is_file():
            raise FileNotFoundError(
                f"{run.vae} has no {VAE_FILE}; give the folder of `longlive train vae`, new or shipped"
            )
        return load_vae(run.vae / VAE_FILE)
    if run.shipped_vae:
        return load_mini().vae
    return train_vae(VAERun(run.seed), run.vae_folder, partial(_train, hooks))


def _train(hooks: Hooks, stage: Stage, settings: TrainerSettings, folder: Path) -> bool:
    """Trains a phase of the VAE in a folder; returns whether it is complete."""
    hooks.log(f"{stage.name}: {settings.steps} steps")
    return Trainer(stage, settings, folder, hooks.on_progress, hooks.should_stop).run()


def _encode(workers: Workers, run: MiniRun, hooks: Hooks | None = None) -> bool:
    vae = load_mini(run.folder / "start").vae
    log, should_stop = (hooks.log, hooks.should_stop) if hooks is not None else (None, None)
    share = partial(encode_films, vae, run.data_folder, run.seed, process=workers.rank, processes=workers.count)
    done = share(run.films, log, should_stop) and share(run.casts, log, should_stop, of=CAST_FILMS)
    if done:
        workers.any(flag=False)  # waits for the other processes
    return done


def _train_transformer(workers: Workers, run: MiniRun, hooks: Hooks | None = None) -> Mini | None:
    """Trains the transformer and text encoder; returns the model with the averages of their weights, on the CPU."""
    mini = load_mini(run.folder / "start", run.device)
    load = partial(load_films, load_mini(run.folder / "start").vae, run.data_folder, run.seed)
    films, casts = load(run.films), load(run.casts, CAST_FILMS)
    settings = MiniSettings(lr=run.lr, seed=run.seed)
    settings = replace(settings, singles=settings.singles * run.batch, film_blocks=settings.film_blocks * run.batch)
    if run.nvfp4:
        settings = replace(settings, nvfp4=NVFP4Settings(), kv_format="nvfp4")
    read = hooks and hooks.read
    gates = None if read is None else partial(shape_gates, read=read, films=run.gate_films)
    stage = MiniStage(mini, films, _metric(run, workers), settings, gates, casts)
    trainer = Trainer(
        stage,
        TrainerSettings(
            steps=run.steps,
            seed=run.seed,
            accumulation=PARTS * -(-run.processes // PARTS),
            save_every=run.save_every,
            validate_every=0 if read is None else run.gate_every,
        ),
        run.folder / "transformer",
        on_progress=hooks and hooks.on_progress,
        should_stop=hooks and hooks.should_stop,
        workers=workers,
    )
    if not trainer.run():
        return None
    for trained in stage.trained:
        if average := trainer.averages.get(trained.name):
            average.copy_to(trained.module)
        trained.module.requires_grad_(False)
    for module in mini.modules:
        module.cpu()
    return mini


def _metric(run: MiniRun, workers: Workers) -> Tensor:
    """The decoder's metric, measured once and then read by all processes."""
    path = run.folder / "start" / METRIC_FILE
    if workers.first and not path.is_file():
        partial_path = path.with_suffix(".partial")
        save_file({"metric": decoder_metric(load_mini(run.folder / "start").vae, run.seed)}, partial_path)
        partial_path.replace(path)
    workers.any(flag=False)  # waits for the first process
    return load_file(path)["metric"]
