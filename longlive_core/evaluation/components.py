"""Connected components and erosion of binary masks, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def largest_component(mask: Mask) -> Mask:
    """The largest 4-connected component of a mask `[H, W]`; all False for an empty mask.

    The algorithm connects runs of set pixels, so that a solid shape takes one step for each row:

        row 0   . ### . ## .      runs 0 and 1
        row 1   . . ##### . .     run 2 touches both, so that all three are one component
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges > 0)
    _, stops = np.nonzero(edges < 0)
    if not len(rows):
        return np.zeros_like(mask)
    components = _connect_runs(rows.tolist(), starts.tolist(), stops.tolist())
    best = np.bincount(components, weights=stops - starts).argmax()
    in_best = components == best
    steps = np.zeros(edges.shape, dtype=np.int8)
    steps[rows[in_best], starts[in_best]] = 1
    steps[rows[in_best], stops[in_best]] = -1
    return np.cumsum(steps, axis=1)[:, : mask.shape[1]] > 0


def erode(mask: Mask, by: int) -> Mask:
    """Erodes a mask `[H, W]` by a cross with arms of `by` pixels. Pixels outside the mask count as not set."""
    padded = np.pad(mask, by)
    H, W = mask.shape
    result = mask.copy()
    for shift in range(2 * by + 1):
        result &= padded[shift : shift + H, by : by + W] & padded[by : by + H, shift : shift + W]
    return result


def _connect_runs(rows: list[int], starts: list[int], stops: list[int]) -> NDArray[np.intp]:
    """Component of each run, for runs in reading order: union-find over the overlaps with the row above."""
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run in range(len(rows)):
        # Runs that end before this run starts cannot touch later runs of its row either.
        while rows[above] < rows[run] - 1 or (rows[above] == rows[run] - 1 and stops[above] <= starts[run]):
            above += 1
        other = above
        while rows[other] == rows[run] - 1 and starts[other] < stops[run]:
            parent[root(other)] = root(run)
            other += 1
    return np.array([root(run) for run in range(len(rows))], dtype=np.intp)
