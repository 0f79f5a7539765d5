"""What every test shares: the package `longlive` without an install, and the recorded reference runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def _register_package() -> None:
    """Make `import longlive…` mean this tree, an installed copy or not.

    The root is never put on `sys.path`: its folders `nodes` and `kernels` would shadow other people's modules.
    """
    package = ModuleType("longlive")
    package.__path__ = [str(ROOT)]
    sys.modules["longlive"] = package


_register_package()

# Triton decides where its functions are defined: without a GPU they run in its interpreter, on CPU tensors.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--threads`: whatever is compared to the bit holds for any number, though the bits are others."""
    parser.addoption("--threads", type=int, default=1, help="CPU threads that one operation uses (default: 1)")


def pytest_configure(config: pytest.Config) -> None:
    # Toy tensors gain nothing from a second thread, and stages that each want all cores take them from each other.
    torch.set_num_threads(config.getoption("threads"))


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """The number of threads is the same for every test, though one of them sets another, as `longlive --threads`."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded reference runs: LONGLIVE_GOLDEN, else `shared/golden` beside the repository.

    Skips the test where the folder is absent, except in CI: there a missing folder is a failure.
    """
    folder = Path(os.environ.get("LONGLIVE_GOLDEN", ROOT.parent / "shared" / "golden"))
    if folder.is_dir():
        return folder
    message = f"no recorded runs at {folder}: set LONGLIVE_GOLDEN to their folder"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
