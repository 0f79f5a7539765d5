"""The program of a new rank. Run by its path, because no other process can import a package that ComfyUI has named."""

from __future__ import annotations

import runpy
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


def main(package: str, root: str, *arguments: Any) -> None:  # noqa: ANN401
    """Runs a rank with the arguments of `run_rank`, with the package at `root` under this name, without its nodes."""
    runpy.run_path(str(Path(__file__).with_name("parent.py")))["end_with_parent"]()  # importing torch takes seconds
    if package not in sys.modules:
        module = ModuleType(package)
        module.__path__ = [root]
        sys.modules[package] = module
    import_module(f"{package}.longlive_core.parallel.rank_process").run_rank(*arguments)


if __name__ == "rank":
    main(*globals()["ARGUMENTS"])
