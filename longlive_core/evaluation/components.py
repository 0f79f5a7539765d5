"""Connected components and erosion of binary masks, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def largest_component(mask: Mask) -> Mask:
    """Largest 4-connected component of a mask `[H, W]`; all False for an empty mask.

    The algorithm connects runs of set pixels, so that a solid shape takes one step per row:

        row 0   . ### . ## .      runs 0, 1
        row 1   . . ##### . .     run 2 touches both: one component
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges > 0)
    _, stops = np.nonzero(edges < 0)
    if not len(rows):
        return np.zeros_like(mask)
    parts = _connect(rows.tolist(), starts.tolist(), stops.tolist())
    largest = parts == np.bincount(parts, weights=stops - starts).argmax()
    steps = np.zeros(edges.shape, dtype=np.int8)
    steps[rows[largest], starts[largest]] = 1
    steps[rows[largest], stops[largest]] = -1
    return np.cumsum(steps, axis=1)[:, : mask.shape[1]] > 0


def eroded(mask: Mask, by: int) -> Mask:
    """Erode a mask `[H, W]` by a cross that reaches `by` pixels; pixels outside of the mask count as not set."""
    padded = np.pad(mask, by)
    H, W = mask.shape
    result = mask.copy()
    for shift in range(2 * by + 1):
        result &= padded[shift : shift + H, by : by + W] & padded[by : by + H, shift : shift + W]
    return result


def _connect(rows: list[int], starts: list[int], stops: list[int]) -> NDArray[np.intp]:
    """Component of every run, with runs in reading order: union-find over overlaps with the row above."""
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
