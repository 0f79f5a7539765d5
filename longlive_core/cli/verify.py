"""`longlive verify`: replays recorded runs of the reference and compares the results."""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import CHECK_FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    files = "files or folders (tests/golden/reference of this clone)"
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help=files)


def run(args: argparse.Namespace) -> int:
    """Prints a line for each file and the totals; returns the exit code."""
    from ..evaluation.recorded import check_recorded, recorded_files
    from ..evaluation.verify import verify_file

    files = recorded_files(args.files)
    check_recorded(args.files)
    width = max(4, *(len(path.name) for path in files))
    print(f"{'file':{width}}  {'output':>8}  {'worst call':>10}  attended  verdict")
    counts = {"ok": 0, "failed": 0, "skipped": 0}
    for path in files:
        result = verify_file(path)
        counts[result.verdict] += 1
        attended = {None: "-", True: "agree", False: "DIFFER"}[result.attended]
        output, call = _format_error(result.output_error), _format_error(result.call_error)
        note = f": {result.note}" if result.note else ""
        print(f"{result.name:{width}}  {output:>8}  {call:>10}  {attended:8}  {result.verdict}{note}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return CHECK_FAILED if counts["failed"] else 0


def _format_error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
