"""The list of faults follows the code."""

from __future__ import annotations

from pathlib import Path

from .mutants import CODE, MUTANTS, files_of, the_file


def test_every_fault_can_be_made(root: Path) -> None:
    """The text that a fault replaces stands once in the code, and the tests that must notice it exist."""
    for mutant in MUTANTS:
        the_file(root, CODE, "*.py", mutant.old)
        assert files_of(root, mutant.tests)
