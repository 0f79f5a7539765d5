"""Counts and byte units, and names in addresses.

Sizes of files and tensors are decimal; the memory of graphics cards is sold in units of 2^30 bytes.
"""

from __future__ import annotations

import string
from collections.abc import Iterable

GIB = 2**30
KB, MB, GB = 10**3, 10**6, 10**9
UNRESERVED = f"{string.ascii_letters}{string.digits}-_.~"
UNITS = (("GB", GB), ("MB", MB), ("kB", KB))


def plural(count: int, noun: str) -> str:
    """A count with its noun, as in `1 block` and `2 blocks`; an s makes the plural."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def numbered(noun: str, numbers: Iterable[int]) -> str:
    """Rising numbers with their noun, as in `shot 3`, `blocks 0 to 2, 5` and `no block`."""
    runs = list[list[int]]()
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    if not runs:
        return f"no {noun}"
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"{noun if len(runs) == len(runs[0]) == 1 else noun + 's'} {', '.join(parts)}"


def format_bytes(count: float, spec: str = ".1f") -> str:
    """The size in the largest unit that gives 0.1 or more, as in `10.4 GB`. spec: format of the number."""
    name, unit = next(((name, unit) for name, unit in UNITS if count >= unit / 10), UNITS[-1])
    return f"{count / unit:{spec}} {name}"


def percent_encoded(text: str, plain: str = "") -> str:
    """Encodes a text as a part of an address, as encodeURIComponent does. plain: further signs that stay."""
    kept = UNRESERVED + plain
    return "".join(chr(byte) if chr(byte) in kept else f"%{byte:02X}" for byte in text.encode())
