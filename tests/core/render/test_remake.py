"""The worst shots of a film made again: bounded, the best version by score in the film, the others in the take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.evaluation import features as features_module
from longlive.longlive_core.evaluation.colours import Floats, Frame
from longlive.longlive_core.evaluation.continuity import ShotScore, score_film
from longlive.longlive_core.evaluation.features import ImageFeatures
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.rank_versions import FilmScores, VersionScore
from longlive.longlive_core.render.remake import Remade, check_tries, remake_shot, shots_to_remake
from longlive.longlive_core.render.settings import RenderSettings
from longlive.longlive_core.take import Take, lock_shot

from ..takes import SCRIPT

pytestmark = pytest.mark.slow


def remade(take: Take, mini: Mini, scores: Mapping[int, VersionScore], monkeypatch: pytest.MonkeyPatch) -> Remade:
    """Shot 3 of a take made again twice, where its versions have these scores."""
    monkeypatch.setattr(FilmScores, "_score", lambda _, draft, *__: scores[draft.shots[2].chosen])
    return remake_shot(RenderSettings.resumed(take.folder), FilmScores.of(take), 2, 2, mini=mini)


def scored(*scores: float) -> Mapping[int, VersionScore]:
    """Scores of the versions 0, 1, … whose cuts are those of the script."""
    return {version: VersionScore.of(ShotScore(2, {"colour": score})) for version, score in enumerate(scores)}


def test_versions_have_an_order_where_all_miss_a_cut() -> None:
    """The worst measure decides, then the worst one but for cuts, then the mean; the missed cut is marked."""
    values = ((1, 0.3, 0.9), (0, 0.9, 0.8), (0, 0.8, 0.8), (0, 0.9, 0.7), (0, 0.65, 1.0))
    shots = [ShotScore(2, {"cut": cut, "colour": colour, "seam": seam}) for cut, colour, seam in values]
    scores = [VersionScore.of(shot) for shot in shots]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 5
    marked = "0.00 (cuts differ from the script, else 0.80)"
    assert [score.text for score in scores[:2]] == ["0.30", marked]
    assert VersionScore.of(shots[0], next_cut=0.0).text == "0.00 (cuts differ from the script, else 0.30)"
    assert VersionScore.of(ShotScore(2, {"cut": None})).text == "1.00"


def test_the_best_version_is_chosen(mini: Mini, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many new ones with seeds that the shot has not had; the later shots keep their versions."""
    done = remade(take, mini, scored(0.3, 0.4, 0.9), monkeypatch)
    saved = Take.load(take.folder)
    assert done.chosen == saved.shots[2].chosen == 2 and len(saved.shots[2].versions) == 3
    assert [shot.chosen for shot in saved.shots] == [0, 0, 2, 0, 0]
    assert done.text == (
        "shot 3 made again: version 0 0.30, version 1 0.40, version 2 0.90; version 2 is in the film now"
    )


def test_the_film_stays_where_no_version_is_better(mini: Mini, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """An equal one is not better; the versions stay in the take."""
    done = remade(take, mini, scored(0.3, 0.3, 0.2), monkeypatch)
    saved = Take.load(take.folder)
    assert done.chosen == saved.shots[2].chosen == 0 and len(saved.shots[2].versions) == 3
    assert done.text.endswith("version 0 is kept")


def test_a_decoded_version_has_the_score_of_its_film(mini: Mini, take: Take) -> None:
    """Decoded with the blocks beside it, the version in the film differs from the file by the encoding only."""
    film = FilmScores.of(take)
    of_file = [score.score for score in score_film(film.facts, take.plan, film.references)]
    decoded = [film.of_versions(take, mini.vae, shot, [0])[0].score for shot in (1, 2)]
    assert decoded == pytest.approx([min(of_file[1], 1), min(of_file[2], 1)], abs=0.1)


def test_versions_are_seen_by_the_model_of_the_film(mini: Mini, take: Take) -> None:
    """A vision model that was given for the film embeds the frames of the blocks of a version, too."""
    counts = list[int]()

    def embed(frames: Sequence[Frame]) -> Floats:
        counts.append(len(frames))
        return np.full((len(frames), 1), 1.0, np.float32)

    film = FilmScores.of(take, embed=embed)
    assert len(counts) == len(take.plan.blocks) == len(film.facts.features)
    scores = film.of_versions(take, mini.vae, 1, [0])
    assert len(counts) == len(take.plan.blocks) + 3  # its block and those beside it
    assert scores == FilmScores.of(take).of_versions(take, mini.vae, 1, [0])


def test_the_worst_shots_are_made_again_and_no_more(take: Take) -> None:
    """Below the limit, at most so many, in the order of the film; never the first one, nor a locked one."""
    scores = [ShotScore(shot, {"cut": value}) for shot, value in enumerate((0.1, 0.5, 0.2, 0.3, 0.9))]
    shots, notes = shots_to_remake(scores, take, 0.8, 2)
    assert shots == [2, 3] and "1 more below 0.8" in notes[1] and notes[0].startswith("shot 1 is not made again")
    shots, notes = shots_to_remake(scores, lock_shot(take, 3, True), 0.8, 2)
    assert shots == [1, 3] and any("shot 3 is not made again: it is locked" in note for note in notes)
    assert shots_to_remake(scores, take, 0.05, 2) == ([], ())
    for tries, most in ((0, 1), (17, 1), (1, 0)):
        with pytest.raises(ValueError, match=r"--(tries|most)"):
            check_tries(tries, most)


def test_the_command_reports_and_makes_again(mini: Mini, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`longlive check` alone changes nothing; with --retake-below it makes so many versions, and says so in JSON."""
    mini.save(tmp_path / "model")
    (tmp_path / "script.txt").write_text(SCRIPT)

    def longlive(*words: str | Path) -> tuple[int, str]:
        code = main([str(word) for word in words])
        return code, capsys.readouterr().out

    film = tmp_path / "film.mp4"
    size = ("--size", "32x32", "--steps", "2")
    assert longlive("render", tmp_path / "script.txt", "-o", film, "--model", tmp_path / "model", *size)[0] == 0
    before = film.read_bytes()
    folder = tmp_path / "film.take"
    code, printed = longlive("check", folder, "--below", "0")
    assert code == 0 and printed.startswith("shot  score") and film.read_bytes() == before
    code, printed = longlive(
        "check", folder, "--below", "1", "--retake-below", "1", "--tries", "1", "--most", "1", "--json"
    )
    data = json.loads(printed)
    assert code == 1 and len(data["remade"]) == 1 and len(data["remade"][0]["scores"]) == 2
    assert "features" not in data and "similarity" not in data["shots"][0]
    shots = Take.load(folder).shots
    assert sum(len(shot.versions) for shot in shots) == len(shots) + 1
    assert longlive("check", folder, "--retake-below", "0.5", "--tries", "99")[0] == 2


def test_the_command_takes_a_vision_model(
    take: Take, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report has its figures and its name, the scores stay; one that cannot be loaded is refused in one line."""
    given = list[tuple[str, ...]]()

    def load(*words: str) -> ImageFeatures:
        given.append(words)
        zeros = torch.zeros(3, 1, 1)
        return ImageFeatures("tiny", mean_colour, 8, zeros, zeros + 1)

    def mean_colour(pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(pooler_output=pixel_values.mean(dim=(2, 3)))

    folder = str(take.folder)
    main(["check", folder, "--json"])
    plain = json.loads(capsys.readouterr().out)
    assert main(["check", folder, "--features", str(tmp_path / "none")]) == 2
    assert "is no folder and is not in the Hugging Face cache" in capsys.readouterr().err
    monkeypatch.setattr(features_module, "load_features", load)
    main(["check", folder, "--json", "--features", "own", "--device", "cpu"])
    data = json.loads(capsys.readouterr().out)
    assert given == [("own", "cpu")] and data["features"] == "tiny"
    assert all(0 < shot["similarity"] <= 1 for shot in data["shots"])
    assert [shot["scores"] for shot in data["shots"]] == [shot["scores"] for shot in plain["shots"]]
    main(["check", folder, "--features", "own"])
    assert capsys.readouterr().out.splitlines()[0].endswith("  similarity")
