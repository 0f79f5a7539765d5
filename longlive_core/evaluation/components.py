"""Connected parts of a binary mask, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def largest_component(mask: Mask) -> Mask:
    """The largest part of a mask `[H, W]` connected along rows and columns; all False for an empty mask.

    Works on runs of set pixels, so a solid shape costs one step a row:

        row 0   . ### . ## .      runs 0, 1
        row 1   . . ##### . .     run 2 touches both: one part
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges > 0)
    _, stops = np.nonzero(edges < 0)
    if not len(rows):
        return np.zeros_like(mask)
    parts = _connect(rows.tolist(), starts.tolist(), stops.tolist())
    best = np.bincount(parts, weights=stops - starts).argmax()
    kept = parts == best
    steps = np.zeros(edges.shape, dtype=np.int8)
    steps[rows[kept], starts[kept]] = 1
    steps[rows[kept], stops[kept]] = -1
    return np.cumsum(steps, axis=1)[:, : mask.shape[1]] > 0


def eroded(mask: Mask, by: int) -> Mask:
    """Pixels of `[H, W]` whose neighbours up to `by` away along row and column are all set; beyond the edge none is."""
    padded = np.pad(mask, by)
    H, W = mask.shape
    kept = mask.copy()
    for shift in range(2 * by + 1):
        kept &= padded[shift : shift + H, by : by + W] & padded[by : by + H, shift : shift + W]
    return kept


def _connect(rows: list[int], starts: list[int], stops: list[int]) -> NDArray[np.intp]:
    """Part of every run, the runs being in reading order: union-find over overlaps with the row above."""
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run in range(len(rows)):
        # Runs that end before this one begins cannot touch any later run of the row either.
        while rows[above] < rows[run] - 1 or (rows[above] == rows[run] - 1 and stops[above] <= starts[run]):
            above += 1
        other = above
        while rows[other] == rows[run] - 1 and starts[other] < stops[run]:
            parent[root(other)] = root(run)
            other += 1
    return np.array([root(run) for run in range(len(rows))], dtype=np.intp)
