"""The reference's prompts: folders of captions with lengths in blocks, and text files with a film a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from longlive.longlive_core.script import ScriptError
from longlive.longlive_core.script.prompt_folder import read_films, read_script


def write(folder: Path, captions: list[str], durations: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for number, caption in enumerate(captions, 1):
        (folder / f"{number}.json").write_text(json.dumps({"caption": caption}), "utf-8")
    if durations is not None:
        (folder / "shot_durations.txt").write_text(durations)
    return folder


@pytest.mark.parametrize("durations", ["3 2 4", "3\n2\n4\n", "3, 2,4", " 3,\n2\n\n4 "])
def test_a_folder_of_prompts_is_a_film(tmp_path: Path, durations: str) -> None:
    """One shot a file, in the order of their numbers, with lengths in blocks."""
    folder = write(tmp_path / "film", ["a fox", "it runs", "a lake"], durations)
    (folder / "global.json").write_text("{}")
    assert read_script(folder).format().splitlines() == [
        "Shot 1 (3 blocks): a fox",
        "Shot 2 (2 blocks): it runs",
        "Shot 3 (4 blocks): a lake",
    ]


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    """`10.json` follows `9.json`; without a file of lengths the shots have none."""
    script = read_script(write(tmp_path / "film", [f"scene of day {number}" for number in range(1, 12)]))
    assert [shot.text for shot in script.shots][8:] == ["scene of day 9", "scene of day 10", "scene of day 11"]
    assert all(shot.duration is None for shot in script.shots)


def test_captions_are_plain_text(tmp_path: Path) -> None:
    """Brackets, bars and at signs in a caption have no meaning, and line ends are spaces."""
    prompt = "a {fox} | (4s) [snow\n@seed=7 C:\\x"
    assert read_script(write(tmp_path / "film", [prompt])).shots[0].prompt == "a {fox} | (4s) [snow @seed=7 C:\\x"


@pytest.mark.parametrize(
    ("captions", "durations", "message"),
    [
        ([], None, "cannot read .*: it is a folder without prompts"),
        (["a fox"], "3 2", "shot_durations.txt has 2 lengths for 1 captions"),
        (["a fox", "it runs"], "3", "shot_durations.txt has 1 lengths for 2 captions"),
        (["a fox"], "3.5", "has '3.5', which is not a number of blocks"),
        (["a fox"], "0", "has '0', which is not a number of blocks"),
        ([" "], None, r"1\.json has no caption"),
        (["a\x07"], None, r"1\.json has the control character U\+0007"),
    ],
)
def test_an_incomplete_folder_is_an_error_with_a_remedy(
    tmp_path: Path, captions: list[str], durations: str | None, message: str
) -> None:
    """Nothing is left out or filled in: what is missing is named."""
    with pytest.raises(ScriptError, match=message) as caught:
        read_script(write(tmp_path / "film", captions, durations))
    assert caught.value.remedy


def test_a_folder_of_films_names_them(tmp_path: Path) -> None:
    """The reference's outer folder has a film in each folder: one of them must be given."""
    write(tmp_path / "a", ["a fox"])
    with pytest.raises(ScriptError, match=r"has 1 folders of prompts, each a film: give one of them, as .*a$"):
        read_script(tmp_path)


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    """A broken file is named, and nothing is rendered."""
    write(tmp_path, ["a fox"])
    (tmp_path / "2.json").write_text("{")
    with pytest.raises(ScriptError, match=r"2\.json is not JSON"):
        read_script(tmp_path)


def test_a_film_a_line(tmp_path: Path) -> None:
    """Each line is a film of one shot, as plain text."""
    (tmp_path / "prompts.txt").write_text("a fox | in snow\n\nShot 2 of {tequila}\n")
    films = read_films(tmp_path / "prompts.txt")
    assert [[shot.prompt for shot in film.shots] for film in films] == [["a fox | in snow"], ["Shot 2 of {tequila}"]]
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(ScriptError, match="has no prompts"):
        read_films(tmp_path / "prompts.txt")
