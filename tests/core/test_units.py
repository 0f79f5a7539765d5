"""Byte units."""

from __future__ import annotations

import pytest
from longlive.longlive_core.units import format_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [(10.38e9, "10.4 GB"), (1e8, "0.1 GB"), (7.4e6, "7.4 MB"), (100_000, "0.1 MB"), (99_000, "99.0 kB"), (3, "0.0 kB")],
)
def test_a_size_is_given_in_the_largest_unit_of_which_there_is_a_tenth(count: float, text: str) -> None:
    """Sizes are decimal, with one digit after the point, in the largest unit that gives 0.1 or more."""
    assert format_bytes(count) == text


def test_the_digits_may_be_chosen() -> None:
    """The format specification is that of the number alone."""
    assert format_bytes(2.925e9, ".2f") == "2.92 GB"
