"""A host whose modules hold nothing but empty classes, for rules of `nodes/` that need a GPU and no ComfyUI."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

HOST = ("comfy", "comfy_api", "folder_paths", "server")
NODES = "longlive.nodes"


class FakeModule(ModuleType):
    """A module of which every public name is a class of its own."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


class FakeHost(MetaPathFinder, Loader):
    """Finds every module of the host."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] not in HOST:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return FakeModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """A fake module has no code."""


@contextmanager
def fake_host() -> Generator[Callable[[str], Any], None, None]:
    """A function that imports a module by name: one of `longlive.nodes`, without its `__init__`, or a fake one."""

    def ours() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in HOST or f"{name}.".startswith(f"{NODES}.")]

    before = {name: sys.modules.pop(name) for name in ours()}
    package = ModuleType(NODES)
    package.__path__ = [str(Path(__file__).resolve().parents[2] / "nodes")]
    sys.modules[NODES] = package
    finder = FakeHost()
    sys.meta_path.insert(0, finder)
    try:
        yield import_module
    finally:
        sys.meta_path.remove(finder)
        for name in ours():
            del sys.modules[name]
        sys.modules.update(before)
