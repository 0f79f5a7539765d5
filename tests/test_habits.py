"""What GitHub, pre-commit and the Registry read is well-formed, pinned and in step with pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .check_files import faults

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# `uses: owner/name@<commit> # v1.2.3`, or the branch and day of a commit that no release has.
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # (v\d+\.\d+\.\d+|main of \d{4}-\d\d-\d\d)$")


def workflow(root: Path, name: str) -> dict[str, Any]:
    return yaml.safe_load((root / ".github" / "workflows" / name).read_text("utf-8"))


def tracked(root: Path) -> list[Path]:
    """The files of the repository: what git knows, or all that lies there where git is not."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    names = [root / name for name in done.stdout.split("\0") if name]
    return [path for path in names if path.is_file() or path.is_symlink()] or [
        path for path in root.rglob("*") if path.is_file()
    ]


def test_the_archive_holds_every_package(root: Path) -> None:
    """`.comfyignore` leaves out no folder of the packages: some command or node imports each of them."""
    packages = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = [package.removeprefix("longlive").strip(".").replace(".", "/") + "/x" for package in packages]
    ignored = (root / ".comfyignore").read_text("utf-8").split()
    assert [line for line in ignored if any(folder.startswith(line) for folder in folders)] == []


def test_files_parse_are_small_and_end_in_a_newline(root: Path) -> None:
    """What the pre-commit hook asks of each file holds for all of them."""
    assert [fault for path in tracked(root) for fault in faults(path)] == []


def test_the_hook_finds_a_link(tmp_path: Path) -> None:
    """A link is a fault, also one that leads nowhere."""
    link = tmp_path / "node_modules"
    link.symlink_to(link)
    (fault,) = faults(link)
    assert "a link" in fault


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yml", "a: [1"),
        ("a.json", '{"a": }'),
        ("a.toml", "a ="),
        ("a.md", "no newline"),
        ("a.bin", "x" * 8_000_001 + "\n"),
    ],
)
def test_the_hook_finds_a_fault(tmp_path: Path, name: str, content: str) -> None:
    """One fault of each kind is told."""
    path = tmp_path / name
    path.write_text(content if name == "a.md" or content.endswith("\n") else content + "\n", "utf-8")
    assert len(list(faults(path))) == 1


def test_actions_are_pinned_by_commit(root: Path) -> None:
    """A tag can be moved to other code: every action is named by its commit, with the version in a comment."""
    lines = [
        line.strip().removeprefix("- ")
        for path in (root / ".github" / "workflows").glob("*.yml")
        for line in path.read_text("utf-8").splitlines()
    ]
    used = [line for line in lines if line.startswith("uses:")]
    assert len(used) > 5
    assert [line for line in used if not line.startswith("uses: ./") and not PINNED.match(line)] == []


@pytest.mark.parametrize("name", ["test.yml", "publish.yml"])
def test_workflows_may_only_read_and_end(root: Path, name: str) -> None:
    """A workflow's token reads, runs of one kind do not pile up, and no job hangs for hours."""
    read = workflow(root, name)
    assert read["permissions"] == {"contents": "read"} and "concurrency" in read
    own = {job: facts for job, facts in read["jobs"].items() if "uses" not in facts}
    assert [job for job, facts in own.items() if not 0 < facts.get("timeout-minutes", 0) <= 60] == []


def test_the_tested_pythons_are_the_promised_ones(root: Path) -> None:
    """The oldest tested Python is the oldest allowed one, and pyproject.toml names each that is tested."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    pythons = workflow(root, "test.yml")["jobs"]["linux"]["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={pythons[0]}"
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if line.startswith("Programming Language")]
    assert [python for python in pythons if python not in named] == []


def test_publishing_waits_for_the_tests(root: Path) -> None:
    """No version is published that the tests have not passed."""
    jobs = workflow(root, "publish.yml")["jobs"]
    assert jobs["publish"]["needs"] == "test" and jobs["test"]["uses"] == "./.github/workflows/test.yml"
    # YAML reads the key `on` as true.
    assert "workflow_call" in workflow(root, "test.yml")[True]


@pytest.mark.parametrize(
    ("log", "good"),
    [
        ("   0.2 seconds: /c/custom_nodes/longlive\n", True),
        ("   0.1 seconds (IMPORT FAILED): /c/custom_nodes/longlive\n", False),
        ("LongLive could not load its nodes\n   0.2 seconds: /c/custom_nodes/longlive\n", False),
        ("   0.2 seconds: /c/custom_nodes/other\n", False),
    ],
)
@pytest.mark.linux
def test_a_log_without_our_nodes_fails(root: Path, tmp_path: Path, log: str, good: bool) -> None:
    """The job that starts ComfyUI is red where the pack is missing, failed to import or lost its nodes."""
    (tmp_path / "log").write_text(log)
    done = subprocess.run(["bash", root / ".github" / "check_comfyui_log.sh", tmp_path / "log"], capture_output=True)
    assert (done.returncode == 0) == good
