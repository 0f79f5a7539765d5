"""What every test shares: the package `longlive` without an install, and the recorded reference runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
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
def golden() -> Callable[[str], Path]:
    """The path of a recorded reference run by its name: `golden("generate_steps2")`.

    The whole set is read from LONGLIVE_GOLDEN, else from `shared/golden` beside the repository. Where there is none,
    the subset in tests/golden/reference stands in, and a test of a run outside the subset is skipped. A LONGLIVE_GOLDEN
    that is no folder fails the test: whoever names a set wants it used.
    """
    named = os.environ.get("LONGLIVE_GOLDEN")
    whole = Path(named or ROOT.parent / "shared" / "golden")
    if named and not whole.is_dir():
        pytest.fail(
            f"LONGLIVE_GOLDEN is {named}, which is no folder: give the folder of the recorded runs, or unset it"
        )
    folder = whole if whole.is_dir() else ROOT / "tests" / "golden" / "reference"

    def recorded(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        if folder is not whole and not path.is_file():
            pytest.skip(f"{name} is not in the subset of recorded runs: set LONGLIVE_GOLDEN to the whole set")
        return path

    return recorded
