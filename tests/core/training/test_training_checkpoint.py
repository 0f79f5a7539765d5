"""Checkpoints: a run finds its newest complete one, whatever happened while it was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.training import checkpoint
from longlive.longlive_core.training.checkpoint import BadCheckpointError, Checkpoints, DiskFullError, read_checkpoint

STATE: dict[str, Any] = {
    "step": 3,
    "pi": 0.1 + 0.2,
    "none": None,
    "yes": True,
    "word": "naïve",
    "nested": {0: torch.arange(3), "a.b": torch.ones(2, dtype=torch.bfloat16), "a": {"b": torch.zeros(1)}},
    "list": [torch.tensor(2.5, dtype=torch.float64), (1, 2, [])],
    "random": (3, (2**31, 2**40), None),
    "empty": {},
}


def same(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Equal values of equal types, tensors to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Numbers, texts, tuples, types of keys and tensors of any dtype come back; names with dots do not collide."""
    path = Checkpoints(tmp_path).save((3, 0), STATE)
    assert same(read_checkpoint(path), STATE)
    assert path.name == "step-00000003"


def test_a_state_without_tensors_is_read(tmp_path: Path) -> None:
    """A stage may have no tensors at all."""
    assert read_checkpoint(Checkpoints(tmp_path).save((1, 0), {"a": 1})) == {"a": 1}


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    """An object is refused by its name, before anything is written."""
    with pytest.raises(TypeError, match=r"state\.a\.1 is a set"):
        Checkpoints(tmp_path).save((1, 0), {"a": [1, {2}]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    """Only the newest `keep` places remain, in the order of steps and of parts within a step."""
    checkpoints = Checkpoints(tmp_path, keep)
    places = [(1, 0), (2, 0), (2, 3), (2, 11), (10, 0)]
    for place in places:
        checkpoints.save(place, {"place": place})
    assert checkpoints.places() == places[-keep:]
    assert checkpoints.load() == {"place": (10, 0)}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _flip(path / "__0_0.distcp"),
        lambda path: _flip(path / ".metadata"),
        lambda path: (path / "__0_0.distcp").write_bytes((path / "__0_0.distcp").read_bytes()[:-1]),
        lambda path: (path / "__0_0.distcp").unlink(),
        lambda path: (path / ".metadata").unlink(),
        lambda path: (path / "state.json").unlink(),
        lambda path: (path / "state.json").write_text('{"format": "longl'),
        lambda path: (path / "state.json").write_text("{}"),
        lambda path: (path / "state.json").write_text("[1]"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """A checkpoint with a changed, cut or missing file is never chosen: the one before it is, with a note."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save((1, 0), {"weights": torch.zeros(100)})
    damage(checkpoints.save((2, 0), {"weights": torch.ones(100)}))
    loaded = checkpoints.load()
    assert loaded is not None and torch.equal(loaded["weights"], torch.zeros(100))
    assert len(checkpoints.notes) == 1 and "step-00000002 is damaged" in checkpoints.notes[0]
    damage(checkpoints.path((1, 0)))
    with pytest.raises(BadCheckpointError, match="delete them to start from step 0"):
        checkpoints.load()


def test_a_damaged_checkpoint_is_replaced(tmp_path: Path) -> None:
    """A run that comes to the step of a damaged checkpoint again writes it anew."""
    checkpoints = Checkpoints(tmp_path)
    _flip(checkpoints.save((2, 0), STATE) / "__0_0.distcp")
    assert same(read_checkpoint(checkpoints.save((2, 0), STATE)), STATE)


@pytest.mark.parametrize("moment", ["save", "_digest", "_synchronise", "replace"])
def test_a_save_that_ends_midway_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whatever step of writing fails, the checkpoint before it is the newest, and the next save succeeds.

    `os._exit` stands for a kill: nothing is cleaned up.
    """
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save((1, 0), {"n": 1})
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        owner = os if moment == "replace" else checkpoint
        monkeypatch.setattr(owner, moment, lambda *_, **__: os._exit(9))
        os.close(read)
        checkpoints.save((2, 0), {"n": 2})
        os.write(write, b"the save was not interrupted")
        os._exit(0)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, os.read(read, 100)
    assert any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    assert checkpoints.places() == [(1, 0)] and checkpoints.load() == {"n": 1}
    checkpoints.save((2, 0), {"n": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC says where, how much and what is kept; nothing half written remains."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save((1, 0), {"n": torch.zeros(1_000_000)})
    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(DiskFullError, match=r"step-00000002 \(4\.0 MB\): No space left on device; free .* is kept"):
        checkpoints.save((2, 0), {"n": torch.zeros(1_000_000)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
