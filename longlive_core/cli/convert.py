"""`longlive convert`: converts a checkpoint to another format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from ...kernels import RULES
from ..weights import LoraFile
from ..weights.convert import ConversionStopped, ConvertProgress, Format, convert_checkpoint
from ..weights.convert_report import progress_line, report_lines
from .console import stop_signals, stopped_early


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("source", type=Path, metavar="IN", help="a checkpoint: safetensors or an official .pt")
    parser.add_argument("target", type=Path, metavar="OUT.safetensors")
    formats = "format of the blocks' linear layers (nvfp4)"
    parser.add_argument("--format", choices=get_args(Format), default="nvfp4", help=formats)
    lora = "a LoRA to merge before the weights are quantised; may be given several times: the LoRAs add up"
    parser.add_argument("--lora", action="append", default=[], metavar="FILE[:STRENGTH]", help=lora)
    parser.add_argument("--strength", type=float, help="strength of LoRAs that are given without one (1)")
    causal = "mark OUT as causal (LongLive) though IN does not say so; without it, OUT says no more than IN"
    parser.add_argument("--causal", action="store_true", help=causal)
    parser.add_argument("--rule", choices=RULES, default="mse", help="how nvfp4 chooses its block scales (mse)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


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


def convert_lines(
    args: argparse.Namespace,
    on_progress: Callable[[ConvertProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[str]:
    """Converts the checkpoint and yields the lines of the report. Raises as `convert_checkpoint`."""
    conversion = convert_checkpoint(
        args.source,
        args.target,
        format=args.format,
        loras=[LoraFile.parse(text, args.strength) for text in args.lora],
        causal=args.causal,
        rule=args.rule,
        overwrite=args.overwrite,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    yield from report_lines(conversion)
