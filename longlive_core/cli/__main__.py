"""`python -m longlive.longlive_core.cli`: the command line without its console script."""

from __future__ import annotations

from .main import program

program()
