"""`longlive script`, and the scripts that `render` and `plan` take: how a text is read is said before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.vae import VAEConfig
from longlive.longlive_core.video import read_video

CHAT = "Here is it:\n\n**Shot 1 (4s):** a fox\n**Sht 2:** it runs\n"


def longlive(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_script_prints_the_reading_as_a_script(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Notes and warnings with line and column are comments above the canonical text, so that the whole is a script."""
    (tmp_path / "film.txt").write_text(CHAT)
    code, out, _ = longlive(capsys, "script", tmp_path / "film.txt")
    assert code == 0
    assert "# note: line 1, column 1: left out: it is no shot\n" in out
    assert "# warning: line 4, column 3: looks like a header (Sht 2) and is read as prompt: write Shot 2:\n" in out
    assert out.endswith("Shot 1 (4s): a fox\nShot 2: Sht 2: it runs\n")
    assert ShotScript.parse(out) == ShotScript.parse(CHAT)


def test_script_prints_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`--json` has shots with their places, notes, warnings and the canonical text."""
    (tmp_path / "film.txt").write_text(CHAT)
    reading = json.loads(longlive(capsys, "script", "--json", tmp_path / "film.txt")[1])
    assert [(shot["line"], shot["text"], shot["duration"]) for shot in reading["shots"]] == [
        (3, "a fox", "4s"),
        (4, "Sht 2: it runs", None),
    ]
    assert reading["notes"] == [{"line": 1, "column": 1, "end_line": 1, "message": "left out: it is no shot"}]
    assert reading["warnings"][0]["line"] == 4
    assert ShotScript.parse(reading["canonical"]) == ShotScript.parse(CHAT)


def test_a_script_error_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With its line and column, as for `render`."""
    (tmp_path / "film.txt").write_text("a fox\n(90s) a party\n")
    code, out, err = longlive(capsys, "script", tmp_path / "film.txt")
    assert (code, out) == (2, "")
    assert (
        err.startswith("longlive: line 2, column 1: (90s) without a header is over a minute") and err.count("\n") == 1
    )


def test_plan_takes_a_script(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With a script it prints the blocks and the reading above the VRAM plan."""
    (tmp_path / "film.txt").write_text(CHAT)
    code, out, _ = longlive(capsys, "plan", tmp_path / "film.txt", "--vram", "24GB")
    assert code == 0
    assert out.startswith("2 shots, 6 blocks, 189 frames") and "note: line 1, column 1: left out" in out
    assert out.endswith(longlive(capsys, "plan", "--vram", "24GB")[1])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = WanConfig(dim=48, ffn_dim=96, num_heads=2, num_layers=1, freq_dim=32, text_dim=32, text_len=16)
    vae = VAEConfig(dim=4, dec_dim=4, num_res_blocks=1, mean=(0.0,) * 48, std=(1.0,) * 48)
    Mini.random(0, ["the", "hero"], config, vae).save(tmp_path / "mini")
    return tmp_path / "mini"


@pytest.mark.slow
def test_render_takes_a_folder_of_prompts(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    """The reference's folder renders as it is, with its lengths in blocks."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.json").write_text(json.dumps({"caption": "the hero"}))
    (folder / "shot_durations.txt").write_text("1, 2")
    words = ("render", folder, "-o", tmp_path / "film.mp4", "--model", model, "--size", "32x32", "--steps", "1")
    code, out, err = longlive(capsys, *words)
    assert code == 0, err
    assert "2 shots, 3 blocks" in out and read_video(tmp_path / "film.mp4").shape[0] == 93


@pytest.mark.slow
def test_render_makes_a_film_of_each_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    """`--one-film-a-line` numbers the files, each film has its take, and all are checked before the first is made."""
    (tmp_path / "prompts.txt").write_text("the hero\nthe fox\n")
    words = ("render", tmp_path / "prompts.txt", "-o", tmp_path / "film.mp4", "--model", model, "--size", "32x32")
    code, out, err = longlive(capsys, *words, "--steps", "1", "--one-film-a-line")
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.glob("film*")) == [
        "film-1.mp4",
        "film-1.take",
        "film-2.mp4",
        "film-2.take",
    ]
    assert "the model does not know fox" in out
    retake = ("retake", tmp_path / "film-2.take", "--shot", "1", "--seed", "5")
    assert longlive(capsys, *retake)[0] == 0
    made = (tmp_path / "film-1.mp4").stat().st_mtime_ns
    code, _, err = longlive(capsys, *words, "--steps", "1", "--one-film-a-line")
    assert code == 2 and "film-2.take has retakes" in err
    assert (tmp_path / "film-1.mp4").stat().st_mtime_ns == made
    code, _, err = longlive(capsys, "render", "--resume", tmp_path / "film-1.take", "--one-film-a-line")
    assert code == 2 and "leave --resume out" in err
    (tmp_path / "film.txt").write_text(CHAT)
    words = ("render", tmp_path / "film.txt", "-o", tmp_path / "chat.mp4", "--model", model, "--size", "32x32")
    assert "note: line 4, column 3: looks like a header (Sht 2)" in longlive(capsys, *words, "--steps", "1")[1]
