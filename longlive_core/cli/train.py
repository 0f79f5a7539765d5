"""`longlive train`: trains a model."""

from __future__ import annotations

import argparse

from . import train_mini


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    subparser = kinds.add_parser("mini", help="train LongLive Mini, the small model that comes with this program")
    train_mini.add_arguments(subparser)
    subparser.set_defaults(train=train_mini.run)


def run(args: argparse.Namespace) -> int:
    """Trains the model; returns the exit code."""
    return args.train(args)
