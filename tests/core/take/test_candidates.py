"""Which take a film goes on in, of several of one node."""

from __future__ import annotations

from pathlib import Path

import pytest
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.take import Take, lock_shot
from longlive.longlive_core.take.candidates import Candidates
from longlive.longlive_core.take.sources import load_sources, save_sources

SETTINGS = {"seed": 1, "weights": "a", "size": "32x32", "fps": 24.0, "block_frames": 8}
SCRIPT = "Shot 1 (1 block): a red ring\nShot 2 (1 block): a blue ring"


def take(folder: Path, script: str = SCRIPT, **settings: object) -> Take:
    """A take without blocks."""
    made = Take.new(folder, ShotScript.parse(script), {**SETTINGS, **settings}, {})  # type: ignore[arg-type]
    made.save()
    return made


def test_the_same_film_comes_before_an_edit_of_it(tmp_path: Path) -> None:
    """A take whose shots have all versions is taken, or else one of which the film is an edit, the newest first."""
    edited = take(tmp_path / "1.take", SCRIPT.replace("blue", "green"))
    exact, other = take(tmp_path / "2.take"), take(tmp_path / "3.take", "Shot 1 (1 block): a square")
    found, script = Candidates(), ShotScript.parse(SCRIPT)
    for one in (other, edited, exact):
        assert found.add(one, script, SETTINGS) is not None
    assert found.same_film == [exact, edited] and found.most_shared is None and found.locked is None


@pytest.mark.parametrize("changed", [{"seed": 2}, {"size": "64x32"}, {"weights": None}])
def test_other_settings_are_another_film(tmp_path: Path, changed: dict[str, object]) -> None:
    """No block of a take with another seed, size or model is kept, whatever its script says."""
    found = Candidates()
    changes = found.add(take(tmp_path / "1.take"), ShotScript.parse(SCRIPT), {**SETTINGS, **changed})  # type: ignore[arg-type]
    assert changes is not None and changes.another_film and changes.count("kept") == 0
    assert found.same_film == [] and found.most_shared is None


def test_a_locked_shot_that_the_script_changes_is_remembered(tmp_path: Path) -> None:
    """Such a take is no candidate; its error says which shot is locked."""
    locked, found = lock_shot(take(tmp_path / "1.take"), 2, True), Candidates()
    assert found.add(locked, ShotScript.parse(SCRIPT.replace("blue", "green")), SETTINGS) is None
    assert found.same_film == [] and "shot 2 is locked" in str(found.locked)


def test_the_sources_of_a_take(tmp_path: Path) -> None:
    """They are what was saved; a take of an older version, or with a damaged file, has none."""
    assert load_sources(tmp_path) is None
    save_sources(tmp_path, [["Loader", 0, ["a"]]])
    assert load_sources(tmp_path) == [["Loader", 0, ["a"]]]
    (tmp_path / "sources.json").write_text("{}")
    assert load_sources(tmp_path) is None
