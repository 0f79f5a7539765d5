"""The package imports where neither ComfyUI nor Triton is, under its own name and under the host's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BLOCKER = """
import importlib.util, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in ("triton", "folder_paths", "server", "execution") or top.split("_")[0] == "comfy":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())

def load(name, root):
    spec = importlib.util.spec_from_file_location(name, root + "/__init__.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""

HOST = """
import asyncio, logging, io
name = root.replace(".", "_x_")
pack = load(name, root)
assert not any("torch" == module or "nodes" in module.split(".") for module in sys.modules), "importing does work"
assert pack.WEB_DIRECTORY == "./web"
assert not hasattr(pack, "NODE_CLASS_MAPPINGS")
log = io.StringIO()
logging.basicConfig(stream=log)
try:
    asyncio.run(pack.comfy_entrypoint())
except ModuleNotFoundError as error:
    assert error.name.startswith("comfy_api"), error
else:
    raise AssertionError("the nodes came up without ComfyUI")
assert "Traceback" in log.getvalue() and "comfy_api" in log.getvalue()
"""

EVERY_MODULE = """
pack = load("longlive", root)
for room in ("longlive_core", "kernels"):
    package = importlib.import_module(f"longlive.{room}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith("longlive.kernels.triton") and not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
assert "triton" not in sys.modules
assert not any(path == root for path in sys.path)
"""


def run(script: str, root: Path, cwd: Path) -> None:
    code = f"{BLOCKER}\nroot = {str(root)!r}\n{script}"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_root_imports_as_the_host_does_it(root: Path, tmp_path: Path) -> None:
    """The pack loads under a path for a name and does nothing; a failing entry point leaves a traceback in the log."""
    run(HOST, root, tmp_path)


def test_every_module_imports(root: Path, tmp_path: Path) -> None:
    """All of the core and the kernels import without ComfyUI and Triton, and without the root on the path."""
    run(EVERY_MODULE, root, tmp_path)


def test_every_package_is_listed(root: Path) -> None:
    """The package list of pyproject.toml is the packages there are: setuptools leaves out what is not listed."""
    listed = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    rooms = [folder for room in ("nodes", "longlive_core", "kernels") for folder in [root / room]]
    found = {path.parent for folder in rooms for path in folder.rglob("__init__.py")}
    assert sorted(listed) == sorted(["longlive", *(".".join(["longlive", *p.relative_to(root).parts]) for p in found)])


@pytest.mark.parametrize(
    "forbidden", ["torch", "torchvision", "torchaudio", "triton", "flash", "flash-attn", "sageattention", "xformers"]
)
def test_requirements_never_choose_a_torch(root: Path, forbidden: str) -> None:
    """Neither the host's environment nor a user's is made to change its torch or attention library."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [line for line in (root / "requirements.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    wanted = [*lines, *(line for extra in project["optional-dependencies"].values() for line in extra)]
    assert forbidden not in [re.split(r"[^\w.-]", line.lower().replace("_", "-"))[0] for line in wanted]
