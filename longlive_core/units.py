"""Counts and byte units.

Sizes of files and tensors are decimal; the memory of graphics cards is sold in units of 2^30 bytes.
"""

from __future__ import annotations

GIB = 2**30
KB, MB, GB = 10**3, 10**6, 10**9
UNITS = (("GB", GB), ("MB", MB), ("kB", KB))


def plural(count: int, noun: str) -> str:
    """A count with its noun, as in `1 block` and `2 blocks`; an s makes the plural."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_bytes(count: float, spec: str = ".1f") -> str:
    """The size in the largest unit that gives 0.1 or more, as in `10.4 GB`. spec: format of the number."""
    name, unit = next(((name, unit) for name, unit in UNITS if count >= unit / 10), UNITS[-1])
    return f"{count / unit:{spec}} {name}"
