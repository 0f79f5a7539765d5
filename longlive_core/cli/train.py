"""`longlive train`: trains the embedded model, writes settings files of runs, and shows the state of a run."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..take.lock import TakeLock
from .console import STOPPED, stop_signals
from .progress_bar import format_duration

if TYPE_CHECKING:
    import torch

    from ..training.log import TrainingProgress
    from ..training.stage import Stage
    from ..training.trainer import TrainerSettings

# The kinds of runs, RUNS in training/settings.py, which is not imported before it is needed: it imports torch.
KINDS = ("ar", "dmd", "vae")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands and their arguments."""
    subcommands = parser.add_subparsers(required=True, metavar="WHAT", dest="what")
    mini = subcommands.add_parser("mini", help="train LongLive Mini from scratch")
    mini.add_argument("--seed", type=int, default=0)
    mini.add_argument("--out", type=Path, default=Path("output/mini"), help="folder of weights and checkpoints")
    init = subcommands.add_parser("init", help="print the settings of a run as a commented TOML file")
    init.add_argument("kind", choices=KINDS)
    init.add_argument("--schema", action="store_true", help="print the JSON schema of the file instead, for editors")
    status = subcommands.add_parser("status", help="show step, loss, pace and last checkpoint of a run")
    status.add_argument("folder", type=Path, metavar="DIR", help="the folder of a run")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; returns the exit code."""
    if args.what == "mini":
        from ..training.mini import train_mini

        train_mini(args.out, args.seed, partial(print, flush=True))
    elif args.what == "init":
        print(template(args.kind, schema=args.schema), end="")
    else:
        print("\n".join(status_lines(args.folder)))
    return 0


def template(kind: str, *, schema: bool = False) -> str:
    """Returns the commented TOML file of a kind of run, or its JSON schema."""
    from ..training.settings import RUNS
    from ..training.toml_settings import json_schema, write_template

    if schema:
        return json.dumps(json_schema(RUNS[kind], f"longlive train {kind}"), indent=2, ensure_ascii=False) + "\n"
    head = f"# Settings of `longlive train {kind}`. A line that is commented out is not set.\n\n"
    return head + write_template(RUNS[kind])


def status_lines(folder: Path) -> list[str]:
    """Returns the report on a run, from its log and its checkpoints, and draws its losses anew.

    Raises FileNotFoundError if the folder has no log.
    """
    from ..training.checkpoint import Checkpoints
    from ..training.log import LOG_FILE, PLOT_FILE, TrainingLog, progress_of, save_plot
    from ..training.trainer import CHECKPOINTS

    lines = TrainingLog(folder).lines()
    if not lines:
        raise FileNotFoundError(f"{folder} has no {LOG_FILE} with a finished step; give the folder of a training run")
    save_plot(lines, folder / PLOT_FILE)
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    places = checkpoints.places()
    last = checkpoints.path(places[-1]) if places else "none yet"
    validation = {k: v for line in lines for k, v in line.items() if k.startswith("validation.") and v is not None}
    report = [format_training(progress_of(lines))]
    if validation:
        report.append(", ".join(f"{name.replace('.', ' ')} {value:.4g}" for name, value in validation.items()))
    return [*report, f"last checkpoint: {last}", f"losses: {folder / PLOT_FILE}"]


def run_stage(stage: Stage, settings: TrainerSettings, folder: Path, device: torch.device) -> int:
    """Trains a stage in a folder and prints the progress; returns the exit code.

    device: the trained modules are moved there; the stage's data and frozen modules are its own concern. The first
    Ctrl-C stops after the current part of a batch and saves a checkpoint.
    """
    from ..training.trainer import Trainer

    for trained in stage.trained:
        trained.module.to(device)
    folder.mkdir(parents=True, exist_ok=True)
    with TakeLock(folder), stop_signals() as should_stop:
        show = TrainingLine().show
        trainer = Trainer(stage, settings, folder, show, should_stop)
        for note in trainer.notes:
            print(f"note: {note}")
        if trainer.step:
            print(f"resumed after step {trainer.step}", flush=True)
        complete = trainer.run()
    if complete:
        print(f"{folder}: {settings.steps} steps done")
        return 0
    print(f"stopped after step {trainer.step}; the same command resumes the run")
    return STOPPED


class TrainingLine:
    """Prints the progress of a run: one line at the first and the last step, and every `seconds` seconds between."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._since = seconds

    def show(self, progress: TrainingProgress) -> None:
        """Prints a line if it is time."""
        self._since += progress.pace
        if self._since >= self.seconds or progress.step == progress.steps:
            self._since = 0.0
            print(format_training(progress), flush=True)


def format_training(progress: TrainingProgress) -> str:
    """Formats progress, as in `step 120/600  model loss 0.1234  1.52 s/step  12:10 left`."""
    losses = "".join(f"  {name} loss {value:.4g}" for name, value in progress.loss.items())
    return (
        f"step {progress.step}/{progress.steps}{losses}  {progress.pace:.3g} s/step  "
        f"{format_duration(progress.seconds_left)} left"
    )
