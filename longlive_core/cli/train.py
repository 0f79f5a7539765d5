"""`longlive train`: trains the embedded model from scratch."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", choices=["mini"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("output/mini"), help="folder of weights and checkpoints")


def run(args: argparse.Namespace) -> int:
    """Trains the model; returns the exit code."""
    from ..training.mini import train_mini

    train_mini(args.out, args.seed, partial(print, flush=True))
    return 0
