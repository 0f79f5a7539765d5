"""Several versions of a shot on the command line: pictures to choose from, and a film with the chosen one."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from longlive.longlive_core.cli import console
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.evaluation.film_facts import FilmFacts
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import RenderSettings
from longlive.longlive_core.render.rank_versions import FilmScores
from longlive.longlive_core.render.versions_job import VersionsJob
from longlive.longlive_core.take import Take, choose
from longlive.longlive_core.take.lock import TakeLock
from longlive.longlive_core.video import read_video
from PIL import Image

from ..takes import SCRIPT, after, latents, make_settings, make_take, resume, same

pytestmark = pytest.mark.slow


def test_a_chosen_version_is_the_film_of_its_script(mini: Mini, take: Take, tmp_path: Path) -> None:
    """Latents and frames equal those of a render of the script with that seed; the film before stays until then."""
    film = take.film.read_bytes()
    job = VersionsJob(RenderSettings.resumed(take.folder), 2, 2, mini=mini)
    assert job.run() and job.made == [1, 2] and take.film.read_bytes() == film
    with TakeLock(take.folder):  # it is released
        chosen, _ = choose(Take.load(take.folder), 2, 2)
        chosen.save()
    resumed, _ = resume(chosen, mini)
    (tmp_path / "straight").mkdir()
    settings = make_settings(tmp_path / "straight")
    (tmp_path / "straight" / "script.txt").write_text(SCRIPT.replace("the other\nShot 3", "the other @seed=2\nShot 3"))
    straight = make_take(mini, settings)
    assert resumed.take is not None and all(same(latents(resumed.take), latents(straight)))
    assert (read_video(resumed.take.film) == read_video(straight.film)).all()


def test_every_version_has_a_picture(mini: Mini, take: Take) -> None:
    """Of its own shot, in the take; and the sheet has them beside the version in the film."""
    job = VersionsJob(RenderSettings.resumed(take.folder), 3, 2, mini=mini)
    assert job.run()
    stills = [Image.open(take.still(2, version)).tobytes() for version in (1, 2)]
    assert stills[0] != stills[1] and not take.still(2, 0).exists()
    sheet = Image.open(job.sheet_path)
    assert job.sheet_path == take.film.with_name("film.shot3.png") and sheet.width > 2 * sheet.height // 3


def test_a_stop_keeps_what_is_finished(mini: Mini, take: Take) -> None:
    """Versions are sampled at once: after a stop each keeps its finished blocks, and another run makes the rest."""
    stopped = VersionsJob(RenderSettings.resumed(take.folder), 1, 3, mini=mini, should_stop=after(10))
    assert not stopped.run() and stopped.made == []
    saved = Take.load(take.folder)
    assert [saved.block_count(0, version) for version in range(len(saved.shots[0].versions))] == [2, 1, 1, 1]
    rest = VersionsJob(RenderSettings.resumed(take.folder), 1, 3, mini=mini)
    assert rest.run() and sorted(rest.made) == [1, 2, 3]
    saved = Take.load(take.folder)
    assert [saved.block_count(0, version) for version in range(len(saved.shots[0].versions))] == [2, 2, 2, 2]


def test_the_command_makes_ranks_and_chooses(
    mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`longlive cover` says how to choose; a chosen version is written, with the later shots, as a straight render.

    A shot that is not there is refused before the film is read, and one that is stopped is not ranked. A take whose
    model is gone keeps its choice.
    """
    mini.save(tmp_path / "model")
    script = tmp_path / "script.txt"
    script.write_text(SCRIPT)

    def longlive(*words: str | Path, code: int = 0) -> str:
        assert main([str(word) for word in words]) == code
        return "".join(capsys.readouterr())

    model = ("--model", tmp_path / "model", "--size", "32x32", "--steps", "2")
    longlive("render", script, "-o", tmp_path / "film.mp4", *model)
    folder = tmp_path / "film.take"
    printed = longlive("cover", folder, "--shot", "3", "--takes", "2")
    assert "version 1 of shot 3: seed 1\nversion 2 of shot 3: seed 2\n" in printed
    assert "film.shot3.png shows them" in printed and f"longlive cover {folder} --shot 3 --choose V" in printed
    plain = (tmp_path / "film.shot3.png").read_bytes()
    ranked = longlive("cover", folder, "--shot", "3", "--takes", "2", "--rank")
    lines = re.findall(r"version (\d) of shot 3: seed \d, continuity (\d\.\d\d)", ranked)
    assert {line[0] for line in lines} == {"3", "4"} and lines[0][1] >= lines[1][1]
    assert (tmp_path / "film.shot3.png").read_bytes() != plain
    printed = longlive("cover", folder, "--shot", "3", "--choose", "2")
    assert "shot 3 is version 2\nshot 4 gets a new version" in printed
    take = Take.load(folder)
    assert take.complete and "@seed=2" in take.script.format()
    (tmp_path / "straight.txt").write_text(take.script.format())
    longlive("render", tmp_path / "straight.txt", "-o", tmp_path / "straight.mp4", *model)
    assert all(same(latents(take), latents(Take.load(tmp_path / "straight.take"))))
    for wrong in (["--takes", "2"], ["--rank"], ["--prompt", "a"], ["--mode", "keep"]):
        assert "leave --takes, --rank" in longlive("cover", folder, "--shot", "3", "--choose", "1", *wrong, code=2)
    assert "leave --preview out" in longlive("cover", folder, "--shot", "3", "--preview", code=2)
    (tmp_path / "model").rename(tmp_path / "gone")
    longlive("cover", folder, "--shot", "3", "--choose", "1", code=2)
    (tmp_path / "gone").rename(tmp_path / "model")
    assert Take.load(folder).shots[2].chosen == 2
    take.film.unlink()
    assert "is missing; resume its render" in longlive("cover", folder, "--shot", "3", "--rank", code=2)
    assert "shot 9" in longlive("cover", folder, "--shot", "9", "--rank", code=2)
    assert "17 versions" in longlive("cover", folder, "--shot", "3", "--takes", "17", "--rank", code=2)
    assert len(Take.load(folder).shots[2].versions) == 5
    monkeypatch.setattr(FilmScores, "of", lambda _: FilmScores(FilmFacts({}, {}, frozenset()), ()))
    monkeypatch.setattr(console, "stop_signals", lambda: nullcontext(lambda: True))
    printed = longlive("cover", folder, "--shot", "3", "--takes", "2", "--rank", code=130)
    assert "stopped before 2 versions; the same command with --takes 2 makes the rest" in printed
