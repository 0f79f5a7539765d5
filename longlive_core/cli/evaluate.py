"""`longlive eval`: measures how well a model keeps identities over the shots of a film."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", choices=["mini"])
    parser.add_argument("--scripts", type=int, default=40, help="number of held-out scripts to render (40)")
    parser.add_argument("--weights", type=Path, help="a folder that `train mini` made (the shipped weights)")
    parser.add_argument("--formats", action="store_true", help="compare KV caches and weights of 16, 8 and 4 bits")
    parser.add_argument("--out", type=Path, default=Path("output/eval"), help="folder of the table and the plots")


def run(args: argparse.Namespace) -> int:
    """Evaluates the model, prints the table and writes the report; returns the exit code."""
    from ..evaluation.formats import evaluate_formats, format_table
    from ..evaluation.mini import evaluate_mini
    from ..evaluation.table import markdown, write_formats, write_report
    from ..mini import load_mini

    if args.scripts < 1:
        raise ValueError(f"--scripts {args.scripts} must be at least 1; 40 gives comparable figures")
    mini, log = load_mini(args.weights), partial(print, flush=True)
    if args.formats:
        rows = evaluate_formats(mini, scripts=args.scripts, log=log)
        print(format_table(rows))
        print(f"wrote {write_formats(rows, args.out)}")
        return 0
    report = evaluate_mini(mini, scripts=args.scripts, log=log)
    print(markdown(report))
    for path in write_report(report, args.out):
        print(f"wrote {path}")
    return 0
