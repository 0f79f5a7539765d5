"""Runs the command line as `python -m longlive.longlive_core.cli`."""

from __future__ import annotations

from .main import program

program()
