"""`longlive train ar`, `dmd` and `vae`: runs of the trainer with the settings of a TOML file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..take.lock import TakeLock
from ..units import plural
from .console import STOPPED, stop_signals
from .train_ranks import training_processes
from .training_line import TrainingLine

if TYPE_CHECKING:
    import torch

    from ..training.dmd_stage import DMDStage
    from ..training.log import TrainingProgress
    from ..training.lora_stage import LoraStage
    from ..training.stage import Stage
    from ..training.trainer import Trainer
    from ..training.trainer_settings import TrainerSettings
    from ..training.workers import Workers

# The kinds of runs, RUNS in training/settings.py, which is not imported before it is needed: it imports torch.
KINDS = ("ar", "dmd", "lora", "vae")
# Those that several processes share.
SHARED = ("ar", "dmd")
HELP = {
    "ar": "train all weights of a model by teacher forcing on encoded films",
    "dmd": "distil a model into a LoRA for few sampling steps",
    "lora": "train a LoRA on videos of your own",
    "vae": "train a VAE like that of LongLive Mini from scratch",
}
# The same LoRA in the official key names, and in those of ComfyUI's core.
LORA_FILE, CORE_LORA_FILE = "lora.safetensors", "lora_comfyui.safetensors"


def add_arguments(parser: argparse.ArgumentParser, kind: str) -> None:
    """Adds the arguments of a kind of run."""
    result = {
        "ar": "the trained model, for `render --model DIR`",
        "dmd": f"the LoRA ({LORA_FILE}, and {CORE_LORA_FILE} for core's loader)",
        "vae": "the VAE, for `train mini --vae DIR`, with a folder for each phase",
    }[kind]
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help=f"settings; `train init {kind}` prints them")
    out = f"folder of log, loss curves, checkpoints and {result}; a run that is in it already is resumed"
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=out)
    parser.add_argument("--device", default="cpu", help="device to train on, such as cuda (cpu)")
    if kind in SHARED:
        sequence = "processes of torchrun that share each film; groups of them share the parts of a batch (1)"
        parser.add_argument("--sequence", type=int, default=1, metavar="N", help=sequence)


def run(kind: str, args: argparse.Namespace) -> int:
    """Trains; returns the exit code. The first Ctrl-C stops between two parts of a batch and saves a checkpoint.

    Raises ValueError for settings, data and models that do not fit, before work starts.
    """
    device = find_device(args.device)
    if kind == "vae":
        return _train_vae(args.config, args.out, device)
    with training_processes(args.sequence, device) as (workers, own):
        return {"ar": _train_ar, "dmd": _train_dmd}[kind](args.config, args.out, own, workers)


def _train_ar(config: Path, out: Path, device: torch.device, workers: Workers) -> int:
    from ..render.load_model import load_model, weights_fingerprint
    from ..take.settings import fingerprint
    from ..training.ar_stage import ARStage
    from ..training.film_source import FilmSource, read_films
    from ..training.films import encoder_digest
    from ..training.settings import ARRun
    from ..training.sharding import whole
    from ..training.stage import Origin
    from ..training.toml_settings import read_settings
    from ..types import BLOCK_FRAMES

    run = read_settings(ARRun, config)
    if run.ar.kv_format is not None and workers.sequence.size > 1:
        raise ValueError(
            f"'ar.kv_format' = {run.ar.kv_format}: processes that share a film would scale K/V by their own heads; "
            "unset it, or use --sequence 1"
        )
    if run.ar.error_recycling is not None and workers.groups > 1:
        raise ValueError(
            f"{workers.groups} groups of processes would each recycle errors of their own, which checkpoints do not "
            f"hold: use --sequence {workers.count}, or unset 'ar.error_recycling' in {config}"
        )
    if run.ar.block_frames != BLOCK_FRAMES:
        raise ValueError(f"{config}: 'ar.block_frames' must be {BLOCK_FRAMES}, as in the encoded films")
    mini = load_model(run.base)
    films = read_films(mini, run.data, run.data_seed, run.films + run.validation_films)
    shown = [encoder_digest(mini.vae), *(f"{film.film} {film.shots}" for film in films[: run.films])]
    origins = {
        "base": Origin(Path(run.base).name, weights_fingerprint(mini, ())),
        "data": Origin(f"{run.films} films of seed {run.data_seed}", fingerprint(part.encode() for part in shown)),
    }
    mini.model.requires_grad_(True).to(device)
    size = workers.sequence.size
    validation = FilmSource(mini, films[run.films :], run.blocks, size) if run.validation_films else None
    train = FilmSource(mini, films[: run.films], run.blocks, size)
    stage = ARStage(
        mini.model,
        train,
        run.ar,
        run.optimiser,
        run.trainer.seed,
        validation=validation,
        origins=origins,
        ranks=workers.sequence,
    )

    def write(trainer: Trainer) -> None:
        """Writes the model at the end; before it, the checkpoints hold it."""
        if trainer.step < run.trainer.steps:
            return
        average = trainer.averages.get("model")
        weights = whole(dict(mini.model.named_parameters()) if average is None else average.weights)
        if workers.first:
            trained = load_model(run.base)
            trained.model.load_state_dict(trained.model.state_dict() | weights)
            trained.save(out)

    return run_stage(stage, run.trainer, out, device, write, workers)


def _train_dmd(config: Path, out: Path, device: torch.device, workers: Workers) -> int:
    from ..render.load_model import load_model, weights_fingerprint
    from ..take.settings import fingerprint
    from ..training.clips import PlanClips, WorldClips, read_plans
    from ..training.dmd import GENERATOR
    from ..training.dmd_stage import DMDStage
    from ..training.lora_run import check_peft
    from ..training.settings import DMDRun
    from ..training.stage import Origin
    from ..training.toml_settings import read_settings

    check_peft()
    run = read_settings(DMDRun, config)
    mini = load_model(run.base)
    base, data = Path(run.base).name, Path(run.data).name
    plans = () if run.data == "world" else read_plans(Path(run.data), run.dmd.block_frames)
    shown = [str(plan) for plan in plans] or ["world"]
    origins = {
        "base": Origin(base, weights_fingerprint(mini, ())),
        "data": Origin(data, fingerprint(part.encode() for part in shown)),
    }
    mini.model.to(device)
    encode, clips = mini.encode_text, run.clips
    source = PlanClips(plans, encode, run.negative, clips) if plans else WorldClips(encode, run.negative, clips)
    seed, ranks = run.trainer.seed, workers.sequence
    stage = DMDStage(mini.model, source, run.dmd, seed, start=run.lora, origins=origins, ranks=ranks)

    def write(trainer: Trainer) -> None:
        """Writes the LoRAs, which all processes have whole."""
        if workers.first:
            write_loras(stage, GENERATOR, out, base, data, trainer)

    return run_stage(stage, run.trainer, out, device, write, workers)


def write_loras(stage: DMDStage | LoraStage, part: str, folder: Path, base: str, data: str, trainer: Trainer) -> None:
    """Writes the LoRA of a run, or the average of its weights, in the official key names and in those of core.

    part: its name among what the stage trains. base, data: names for its card.
    """
    from ..training.lora import CORE_PREFIX, PREFIX, save_lora

    average = trainer.averages.get(part)
    weights = stage.weights if average is None else average.weights
    card = stage.card(trainer.step, base, data)
    for name, prefix in ((LORA_FILE, PREFIX), (CORE_LORA_FILE, CORE_PREFIX)):
        save_lora(folder / name, weights, stage.lora, card, prefix)


def _train_vae(config: Path, out: Path, device: torch.device) -> int:
    from ..mini import VAE_FILE, save_vae
    from ..training.settings import VAERun
    from ..training.toml_settings import read_settings
    from ..training.vae import finetune_decoder, train_vae

    run = read_settings(VAERun, config)

    def train(stage: Stage, settings: TrainerSettings, folder: Path) -> bool:
        return run_stage(stage, settings, folder, device) == 0

    vae = train_vae(run, out, train, device)
    if vae is None or not finetune_decoder(vae, run, out, train, device):
        return STOPPED
    save_vae(vae, out / VAE_FILE)
    print(f"wrote {out / VAE_FILE}")
    return 0


def run_stage(
    stage: Stage,
    settings: TrainerSettings,
    folder: Path,
    device: torch.device,
    write: Callable[[Trainer], None] | None = None,
    workers: Workers | None = None,
) -> int:
    """Trains a stage in a folder and prints the progress; returns the exit code.

    device: the trained modules are moved there; the stage's data and frozen modules are its own concern. write: called
    after each checkpoint, to write what the run makes; by several processes at the end only, in all of them. The first
    Ctrl-C stops after the current part of a batch and saves a checkpoint.
    """
    from ..training.trainer import Trainer
    from ..training.workers import ALONE

    workers = ALONE if workers is None else workers
    for trained in stage.trained:
        trained.module.to(device)
    folder.mkdir(parents=True, exist_ok=True)
    with TakeLock(folder) if workers.first else nullcontext() as lock, stop_signals() as should_stop:
        line = TrainingLine()

        def show(progress: TrainingProgress) -> None:
            if lock is not None:
                lock.check()
            line.show(progress)
            if write is not None and workers.count == 1 and progress.step % settings.save_every == 0:
                write(trainer)

        trainer = Trainer(stage, settings, folder, show, should_stop, workers)
        for note in trainer.notes if workers.first else ():
            print(f"note: {note}")
        if trainer.step and workers.first:
            print(f"resumed after step {trainer.step}", flush=True)
        complete = trainer.run()
        if write is not None:
            write(trainer)
    if workers.first:
        done, stopped = f"{folder}: {plural(settings.steps, 'step')} done", f"stopped after step {trainer.step}"
        print(done if complete else f"{stopped}; the same command resumes the run")
    return 0 if complete else STOPPED


def find_device(name: str) -> torch.device:
    """The device of a name. Raises ValueError if this machine has none of its kind."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"'{name}' is no device; use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no CUDA device on this machine; use --device cpu")
    return device
