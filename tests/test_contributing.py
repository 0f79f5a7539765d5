"""The map of the repository: CONTRIBUTING.md and README.md name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .test_arrows import CORE

SOURCES = (".py", ".md", ".toml", ".yml", ".js")


def missing(text: str, root: Path) -> list[str]:
    """Paths in backticks or links that do not exist.

    A path may leave `longlive_core/` out, and a name without a folder may be in the folder of the path before it.
    """
    roots = [root, root / "longlive_core"]
    folders = {path.name for base in roots for path in base.iterdir() if path.is_dir()} - {"output"}
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    words = [word for span in re.findall(r"`([^`\n]+)`|\]\(([^):#\s]+)\)", prose) for word in " ".join(span).split()]
    before, lost = root, list[str]()
    for word in words:
        if not re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", word):
            continue
        if not (word.endswith(SOURCES) or ("/" in word and word.split("/")[0] in folders)):
            continue
        bases = roots if "/" in word else [before, *roots]
        found = next((path for base in bases for path in base.glob(word.rstrip("/"))), None)
        if found is None:
            lost.append(word)
        elif "/" in word:
            before = found if found.is_dir() else found.parent
    return lost


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_paths_exist(root: Path, page: str) -> None:
    """Every path that a page names is in the repository."""
    assert missing((root / page).read_text("utf-8"), root) == []


def test_the_layout_is_that_of_the_core(root: Path) -> None:
    """The table of folders has those of longlive_core in the order of their imports."""
    rows = re.findall(r"^\| `(\w+)/` \|", (root / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert tuple(rows) == CORE


def test_a_wrong_path_is_found(root: Path) -> None:
    """A file that was moved, removed or never there is reported, in each way of naming it."""
    lost = ["engine.py", "memory/ring.py", "tests/x.py", "old/x.py", "web/*/x.js", "locales/eo"]
    assert missing(" ".join(f"`{path}`" for path in lost) + " `python tests/y.py` [page](docs/X.md)", root) == [
        *lost, "tests/y.py", "docs/X.md",
    ]  # fmt: skip
    assert (
        missing("`model/linears.py` `rope.py` `models/loras` `script/` `locales/*/main.json` `film.take`", root) == []
    )
    assert missing("`model/linears.py` `window.py`", root) == ["window.py"]
