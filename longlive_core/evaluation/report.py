"""The tables of an evaluation: figures with 95 % intervals, counted from the looks at the films of each arm."""

from __future__ import annotations

from collections.abc import Sequence

from ..mini import Mini
from .arm_films import ArmResult
from .film_tables import cuts, one_shot, seams, storage, ten_minutes
from .look_tables import adherence, confusion, each_shape, places, recall
from .scores import PARTS, Table
from .targets import target_table


def make_tables(results: Sequence[ArmResult], mini: Mini, compared: str = "the first arm") -> tuple[Table, ...]:
    """The tables of an evaluation; those without a figure are left out. compared: what PSNR compares films with."""
    tables = [
        target_table(results),
        *(adherence(results, *part) for part in PARTS),
        *(each_shape(results, name, group, part) for name, group, part in PARTS),
        places(results),
        *(confusion(results, name, group, part) for name, group, part in PARTS),
        recall(results),
        seams(results),
        cuts(results),
        one_shot(results),
        ten_minutes(results),
        storage(results, mini, compared),
    ]
    return tuple(table for table in tables if table.rows)
