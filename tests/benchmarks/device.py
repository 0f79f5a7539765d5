"""Everything that needs a GPU, in one command with a time limit.

    python tests/benchmarks/device.py                     all parts in nine minutes at most; needs a CUDA device
    python tests/benchmarks/device.py --parts ops ladder  some parts; --list names them
    python tests/benchmarks/device.py --toy               all parts at tiny shapes, on any machine
    python tests/benchmarks/device.py --render FILE       writes the section of RESULTS.md from a FILE of results
    python tests/benchmarks/device.py --render computed   writes that section without measurements

It needs torch, triton and numpy, and einops and safetensors like the package itself; av and comfy-kitchen are used
where they are installed. Each part runs in a process of its own with a limit of its own. Rows are printed as they come,
and the file of results is written after each. A row that is wrong, fails, hangs or takes its process down costs itself
only; it is never timed, and the exit code is 1. What does not fit the time is skipped and said to be.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from device_parts.machine import machine
from device_parts.part import Row, merge
from device_parts.plan import PARTS, Part, chosen
from device_parts.process import PartProcess
from device_parts.report import write_section
from device_parts.supervise import Child, run_parts
from device_parts.tables import as_text

SECONDS = 540.0
TOY = 5.0
"""How much longer limits are at toy shapes, for a CPU that other work shares. It takes less than a minute by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a row is red or failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=[], metavar="PART", help="run these parts only")
    parser.add_argument("--seconds", type=float, help=f"limit of the whole ({SECONDS:.0f})")
    parser.add_argument("--toy", action="store_true", help="tiny shapes, whose times mean nothing")
    parser.add_argument("--out", type=Path, default=Path("output/device"), help="folder of device.json and of logs")
    parser.add_argument("--list", action="store_true", help="list the parts with their expected seconds and limits")
    parser.add_argument("--render", metavar="FILE", help="write the section of RESULTS.md from device.json")
    args = parser.parse_args(arguments)
    if args.list:
        print("\n".join(f"{p.name}: {p.title}; {p.expected:.0f} s expected, limit {p.limit:.0f} s" for p in PARTS))
        return 0
    if args.render:
        write_section(None if args.render == "computed" else json.loads(Path(args.render).read_text("utf-8")))
        return 0
    try:
        parts = chosen(args.parts)
    except ValueError as error:
        parser.error(str(error))
    times = TOY if args.toy else 1.0
    seconds = times * SECONDS if args.seconds is None else args.seconds
    return run([part.slower(times) for part in parts], seconds, args.out, toy=args.toy)


def run(parts: Sequence[Part], seconds: float, folder: Path, *, toy: bool) -> int:
    """Runs the parts, prints their rows and writes them to `folder`/device.json."""
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "machine": machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "toy": toy,
        "parts": {},
    }
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()), flush=True)
    if "gpu" not in result["machine"] and not toy:
        print("no CUDA device was found: use --toy to test that it runs", file=sys.stderr)
        return 1
    found: dict[str, list[Row]] = {}
    for part, row, spent in run_parts(parts, partial(start, folder=folder, toy=toy), time.monotonic, seconds):
        found.setdefault(part.name, []).append(row)
        print(f"{part.name}: {as_text(row)}", flush=True)
        rows = [row.as_dict() for row in merge(found[part.name]).values()]
        result["parts"][part.name] = {"seconds": round(spent, 1), "rows": rows}
        save(result, folder / "device.json")
    bad = [row for rows in found.values() for row in rows if row.status in ("red", "failed")]
    return 1 if bad else 0


def start(part: Part, first: int, without: Sequence[str], *, folder: Path, toy: bool) -> Child:
    """Starts the process of a part; its standard error is in `folder`."""
    return PartProcess(part, first, without, folder / f"{part.name}.log", toy=toy)


def save(result: dict[str, Any], path: Path) -> None:
    """Writes the results so far; the file is always whole."""
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    partial_path.replace(path)


if __name__ == "__main__":
    sys.exit(main())
