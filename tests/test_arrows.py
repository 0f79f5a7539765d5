"""The imports of the source: nodes → longlive_core → kernels, nothing back, and inside the core from top to bottom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nodes", "longlive_core", "kernels")
MAY_IMPORT = {
    "nodes": {"nodes", "longlive_core", "kernels"},
    "longlive_core": {"longlive_core", "kernels"},
    "kernels": {"kernels"},
}
# The folders of longlive_core. A folder imports only from folders behind it in this list.
CORE = (
    "cli",
    "render",
    "evaluation",
    "training",
    "film",
    "take",
    "mini",
    "vram",
    "sampling",
    "pipeline",
    "weights",
    "memory",
    "vae",
    "model",
    "script",
    "video",
    "parallel",
)
HOST = (
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "server",
)
OWN = ("longlive", *PACKAGES)
# Reads where the recorded runs are, which is no switch: the tests read the same variable.
READS_ENVIRONMENT = ("longlive_core", "evaluation", "recorded.py")
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@dataclass(frozen=True)
class Import:
    """One imported module: `target` as dotted parts, from the repository root where `relative`."""

    target: tuple[str, ...]
    relative: bool
    line: int
    at_import: bool


def imports(source: str, path: Path) -> Iterator[Import]:
    """Every import of a file; `at_import` tells those that run when the file is imported."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(tuple(alias.name.split(".")), False, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            package = path.parent.parts[: len(path.parent.parts) + 1 - node.level] if node.level else ()
            module = tuple((node.module or "").split(".")) if node.module else ()
            for alias in node.names:
                target = (*package, *module) if module else (*package, alias.name)
                yield Import(target, node.level > 0, node.lineno, at_import)
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_import and not deferred and not typing_only)

    yield from walk(ast.parse(source), True)


def faults(source: str, path: Path) -> list[str]:
    """What a file does against the rules, as `path:line: what`."""
    package = path.parts[0]
    found: list[tuple[int, str]] = []
    for item in imports(source, path):
        name = ".".join(item.target)
        if item.relative and item.target[0] not in MAY_IMPORT[package]:
            found.append((item.line, f"{package} imports {name}"))
        if item.relative and is_upwards(path, item.target):
            found.append((item.line, f"{path.parts[1]} imports {name}, which is above it"))
        if not item.relative and item.target[0] in OWN:
            found.append((item.line, f"absolute import of {name}: write it relative"))
        if not item.relative and item.target[0] in HOST and package != "nodes":
            found.append((item.line, f"{package} imports {name} of ComfyUI"))
        if item.target[0] == "triton" and item.at_import and path.parts[:2] != ("kernels", "triton"):
            found.append((item.line, "triton is imported at module level"))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and "cli" not in (path.stem, *path.parts):
            found.append((node.lineno, "print in the library: return it, or log it"))
        reads_environment = isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
        if reads_environment and path.parts != READS_ENVIRONMENT:
            found.append((node.lineno, "a switch in the environment: pass an argument"))
        if isinstance(node, ast.ExceptHandler) and _swallows(node):
            found.append((node.lineno, "an exception of any kind is swallowed"))
    return [f"{path.as_posix()}:{line}: {what}" for line, what in sorted(found)]


def is_upwards(path: Path, target: tuple[str, ...]) -> bool:
    """Whether an import inside the core goes to an earlier folder of `CORE`, or from a loose file into any folder."""
    if path.parts[0] != "longlive_core" or target[0] != "longlive_core" or len(target) < 2 or target[1] not in CORE:
        return False
    return len(path.parts) == 2 or CORE.index(target[1]) < CORE.index(path.parts[1])


def _swallows(handler: ast.ExceptHandler) -> bool:
    kind = "" if handler.type is None else ast.unparse(handler.type)
    return kind in ("", "Exception", "BaseException") and all(isinstance(node, ast.Pass) for node in handler.body)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.as_posix())
def test_file_keeps_the_rules(path: Path) -> None:
    """Arrows point one way, imports are relative, only nodes/ knows ComfyUI, and the library is silent."""
    assert faults((ROOT / path).read_text("utf-8"), path) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("kernels/a.py", "from ..longlive_core import engine", "kernels imports longlive_core"),
        ("kernels/a.py", "from .. import longlive_core", "kernels imports longlive_core"),
        ("longlive_core/vae/a.py", "def f():\n    from ...nodes import types", "longlive_core imports nodes"),
        ("longlive_core/take/a.py", "from ..film import film", "take imports longlive_core.film, which is above it"),
        ("longlive_core/a.py", "from .vae import WanVAE", "imports longlive_core.vae, which is above it"),
        ("nodes/a.py", "from longlive.kernels import ops", "absolute import of longlive.kernels"),
        ("longlive_core/a.py", "import kernels", "absolute import of kernels"),
        ("longlive_core/a.py", "import comfy.utils", "imports comfy.utils of ComfyUI"),
        ("kernels/a.py", "def f():\n    import folder_paths", "imports folder_paths of ComfyUI"),
        ("kernels/a.py", "try:\n    import triton.language as tl\nexcept ImportError:\n    tl = None", "module level"),
        ("longlive_core/a.py", "print('x')", "print in the library"),
        ("longlive_core/a.py", "import os\nx = os.environ.get('X')", "a switch in the environment"),
        ("nodes/a.py", "try:\n    f()\nexcept Exception:\n    pass", "swallowed"),
    ],
)
def test_the_rules_bite(path: str, source: str, fault: str) -> None:
    """Each rule, broken on purpose, is noticed."""
    assert any(fault in found for found in faults(source, Path(path)))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nodes/a.py", "import comfy.utils\nfrom ..longlive_core.vae import WanVAE\nfrom .types import Shots"),
        ("longlive_core/vae/a.py", "from ...kernels import silu\nfrom ..types import Block\nfrom .layers import Conv"),
        ("longlive_core/film/a.py", "from ..take import Take"),
        ("kernels/triton/a.py", "import triton"),
        ("kernels/a.py", "def f():\n    import triton"),
        ("longlive_core/cli/main.py", "print('x')"),
    ],
)
def test_the_rules_let_pass(path: str, source: str) -> None:
    """What the design allows is no fault."""
    assert faults(source, Path(path)) == []


def test_the_core_is_folders_in_order() -> None:
    """Every folder of the core has its place in the order, and few files are outside all of them."""
    folders = {path.parent.name for path in (ROOT / "longlive_core").glob("*/__init__.py")}
    assert folders == set(CORE)
    assert len([path for path in (ROOT / "longlive_core").glob("*.py") if path.name != "__init__.py"]) <= 5
