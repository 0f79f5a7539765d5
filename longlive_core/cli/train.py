"""`longlive train`: trains and distils models, writes settings files of runs, and shows the state of a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import train_lora, train_mini, train_run
from .train_run import HELP, KINDS
from .training_line import format_training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands and their arguments."""
    subcommands = parser.add_subparsers(required=True, metavar="WHAT", dest="what")
    train_mini.add_arguments(subcommands.add_parser("mini", help="train LongLive Mini from scratch"))
    for kind in KINDS:
        subparser = subcommands.add_parser(kind, help=HELP[kind])
        if kind == "lora":
            train_lora.add_arguments(subparser)
        else:
            train_run.add_arguments(subparser, kind)
    init = subcommands.add_parser("init", help="print the settings of a run as a commented TOML file")
    init.add_argument("kind", choices=KINDS)
    init.add_argument("--schema", action="store_true", help="print the JSON schema of the file instead, for editors")
    status = subcommands.add_parser("status", help="show step, loss, pace and last checkpoint of a run")
    status.add_argument("folder", type=Path, metavar="DIR", help="the folder of a run")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; returns the exit code."""
    if args.what == "mini":
        return train_mini.run(args)
    if args.what == "lora":
        return train_lora.run(args)
    if args.what in KINDS:
        return train_run.run(args.what, args)
    if args.what == "init":
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
