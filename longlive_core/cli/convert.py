"""`longlive convert`: converts a checkpoint to another format."""

from __future__ import annotations

import argparse
import sys

from ..weights.convert import ConversionStopped, ConvertProgress
from ..weights.convert_report import add_arguments, convert_lines, progress_line
from .console import stop_signals, stopped_early

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Converts the checkpoint and prints the report; returns the exit code."""

    def show(progress: ConvertProgress) -> None:
        if sys.stderr.isatty():
            print(f"\r{progress_line(progress):79.79}", end="", file=sys.stderr, flush=True)

    try:
        with stop_signals() as should_stop:
            lines = list(convert_lines(args, show, should_stop))
    except ConversionStopped:
        return stopped_early()
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)
    for line in lines:
        print(line)
    return 0
