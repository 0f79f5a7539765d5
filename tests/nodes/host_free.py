"""Modules of `nodes/` that import nothing of the host, without their package, whose `__init__` does."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = "host_free_nodes"


def load(name: str) -> ModuleType:
    """Returns a module by name, with the modules beside it that it imports."""
    package = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE))
    package.__path__ = [str(Path(__file__).resolve().parents[2] / "nodes")]
    return importlib.import_module(f"{PACKAGE}.{name}")
