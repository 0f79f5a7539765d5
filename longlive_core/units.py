"""Byte units. Sizes of tensors and files are decimal (1 GB is 1e9 bytes); graphics cards are sold in units of 2^30."""

from __future__ import annotations

GIB = 2**30
UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3}


def format_bytes(count: float, spec: str = ".1f", units: tuple[str, ...] = ("GB", "MB", "kB")) -> str:
    """`10.4 GB`: in the first of `units`, largest first, of which there is a tenth or more, else in the last.

    spec: the format specification of the number.
    """
    unit = next((unit for unit in units if count >= UNITS[unit] / 10), units[-1])
    return f"{count / UNITS[unit]:{spec}} {unit}"
