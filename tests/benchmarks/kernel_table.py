"""Compiles every kernel at the shapes of the 5B model for GPUs that are not there, and counts.

    python tests/benchmarks/kernel_table.py                  a table in Markdown for sm_90
    python tests/benchmarks/kernel_table.py --arch 80 89     for other architectures
    python tests/benchmarks/kernel_table.py --check          fails where a count is above kernel_limits.json
    python tests/benchmarks/kernel_table.py --write          writes the counts to kernel_limits.json
    python tests/benchmarks/kernel_table.py --late           lists what warming up does not compile

The microseconds are computed for an H200: its memory moves the bytes that an op must read and write once at 4.3 TB/s,
and its 528 schedulers issue one instruction in each cycle of 1.98 GHz. An op takes at least the larger of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
# Triton 3.9 warns that its default will change; every launch says what it wants.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
from device_parts.kernel_cases import CASES
from device_parts.op_case import FIVE_B
from kernel_compile import Compiled, compiling
from longlive.kernels import triton as ops
from longlive.kernels.samples import SAMPLES

LIMITS = Path(__file__).with_name("kernel_limits.json")
ARCHITECTURES = (80, 89, 90, 100, 120)
BANDWIDTH = 4.3e12
ISSUES = 528 * 1.98e9
"""Bytes and instructions of a warp in a second."""
SLACK = 1.1, 8
"""Versions of Triton differ a little: the factor of instructions and the number of registers above the limit."""

LATE = {"quantize_nvfp4 static_6"}
"""Cases that no film launches, so that warming up need not compile them."""

Rows = dict[str, tuple[int, list[Compiled]]]


def compile_all(arch: int, names: list[str]) -> Rows:
    """The bytes that an op must move and the kernels that it launches, by the name of the case."""
    rows: Rows = {}
    size = replace(FIVE_B, device="meta")
    for name in names:
        case = CASES[name](size)
        with compiling(arch) as compiled:
            written = case.run(ops)
        rows[name] = sum(part.nbytes for part in (*case.reads, *written)), compiled
    return rows


def late(arch: int, names: list[str]) -> list[str]:
    """The kernels that the cases launch and that the self-tests, which warm a device up, did not compile."""
    warm: set[str] = set()
    device = torch.device("meta")
    wanted = {name.split()[0] for name in names}
    for name, sample in ((name, sample) for name, sample in SAMPLES.items() if name in wanted):
        with compiling(arch) as compiled:
            getattr(ops, name)(*sample(device))
        warm |= {part.variant for part in compiled}
    rows = compile_all(arch, [name for name in names if name not in LATE])
    return [f"{name}: {part.kernel}" for name, (_, parts) in rows.items() for part in parts if part.variant not in warm]


def faults(arch: int, rows: Rows, limits: dict[str, list[int]]) -> list[str]:
    """What spills, has no limit or is above it."""
    found: list[str] = []
    for name, (_, compiled) in rows.items():
        for part in compiled:
            key = f"{name}: {part.kernel}"
            registers, instructions = limits.get(key, (0, 0))
            if part.spilled:
                found.append(f"sm_{arch} {key} spills {part.spilled} bytes")
            if part.instructions > SLACK[0] * instructions or part.registers > SLACK[1] + registers:
                counts = f"{part.instructions} instructions and {part.registers} registers"
                found.append(f"sm_{arch} {key} has {counts}; the limits are {instructions} and {registers}")
    return found


def markdown(arch: int, rows: Rows) -> str:
    """The table of an architecture."""
    lines = [
        f"| sm_{arch} | kernel | registers | spilled | instructions | MB | µs, memory | µs, instructions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (moved, compiled) in rows.items():
        for index, part in enumerate(compiled):
            memory = f"{moved / 1e6:.0f} | {1e6 * moved / BANDWIDTH:.0f}" if index == 0 else " | "
            issue = 1e6 * part.instructions * part.warps / ISSUES
            counts = f"{part.registers} | {part.spilled} | {part.instructions}"
            lines.append(f"| {name if index == 0 else ''} | `{part.kernel}` | {counts} | {memory} | {issue:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """The exit code: 1 where a count is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", type=int, choices=ARCHITECTURES, default=[90])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--late", action="store_true")
    arguments = parser.parse_args()
    limits = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    found: list[str] = []
    if arguments.late:
        found = [f"compiled late: {name}" for arch in arguments.arch for name in late(arch, arguments.only)]
    for arch in () if arguments.late else arguments.arch:
        rows = compile_all(arch, arguments.only)
        print(markdown(arch, rows), flush=True)
        if arguments.check:
            found += faults(arch, rows, limits.get(str(arch), {}))
        counts = {
            f"{name}: {part.kernel}": [part.registers, part.instructions]
            for name, (_, compiled) in rows.items()
            for part in compiled
        }
        limits[str(arch)] = limits.get(str(arch), {}) | counts
    if arguments.write:
        rows_of = {arch: {key: limits[arch][key] for key in sorted(limits[arch])} for arch in sorted(limits, key=int)}
        text = json.dumps(rows_of, indent=1)
        LIMITS.write_text(text.replace("[\n   ", "[").replace(",\n   ", ", ").replace("\n  ]", "]") + "\n")
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
