"""Cast files of the canvas: where they are, and whose block one is saved from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from longlive.longlive_core.film.block_store import MemoryStore
from longlive.longlive_core.film.take_store import TakeStore

from .fake_host import fake_host


@pytest.fixture
def cast_files(tmp_path: Path) -> Iterator[Any]:
    """The module with an input folder of its own."""
    with fake_host() as load:
        load("folder_paths").get_input_directory = lambda: str(tmp_path / "input")
        (tmp_path / "input").mkdir()
        yield load("longlive.nodes.cast_files")


def store_of(**settings: str) -> TakeStore:
    """The store of a take with these settings and no more."""
    store = object.__new__(TakeStore)
    store.take = SimpleNamespace(settings=settings, folder=Path("film.take"))  # pyright: ignore[reportAttributeAccessIssue]
    return store


def test_the_folder_may_be_a_link_to_another_disk(cast_files: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """Its files are listed and found; a path out of it is refused as ever."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "hero.cast.safetensors").touch()
    (tmp_path / "input" / "cast").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert cast_files.list_casts() == ["hero.cast.safetensors"]
    assert cast_files.cast_path("hero.cast.safetensors").is_file()
    with pytest.raises(ValueError, match="outside the folder of cast files"):
        cast_files.cast_path("../input/other.cast.safetensors")


def test_a_block_is_saved_with_the_model_that_made_it(cast_files: Any) -> None:  # noqa: ANN401
    """A finished take plays with any MODEL: as one of that MODEL its block would be recalled by a model that never made
    it."""
    mine = {"weights": "ComfyUI-1"}
    cast_files.check_made_by(MemoryStore(), mine)
    for weights in ("ComfyUI-1", "along the film: ComfyUI-2, ComfyUI-1"):
        cast_files.check_made_by(store_of(model="ComfyUI", weights=weights), mine)
    with pytest.raises(ValueError, match=r"film\.take was made by another MODEL .*: connect the MODEL that made it"):
        cast_files.check_made_by(store_of(model="ComfyUI", weights="ComfyUI-2"), mine)
    with pytest.raises(ValueError, match=r"made on the command.* longlive cast save film\.take --shot N --block N"):
        cast_files.check_made_by(store_of(model="mini", weights="1"), mine)
