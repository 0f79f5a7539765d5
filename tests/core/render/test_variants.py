"""Several films of one script with seeds that follow one another: the files, the takes, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import RenderSettings
from longlive.longlive_core.render.variant_settings import numbered_films, resumed_variants, variants_of
from longlive.longlive_core.render.variants import Variants
from longlive.longlive_core.sampling import MAX_SEED
from longlive.longlive_core.take import Take, retake
from longlive.longlive_core.take.lock import TakeLock
from longlive.longlive_core.video import read_video

from ..takes import BLOCKS, SCRIPT, after, latents, make_take

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("count", [-1, 0, 17, 1000])
def test_a_number_of_films_out_of_bounds_is_refused(settings: RenderSettings, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} films of one script: make 1 to 16"):
        variants_of(settings, count)


def test_seeds_and_files_follow_one_another(settings: RenderSettings) -> None:
    """Also for a single film; seeds that would not exist are refused."""
    films = variants_of(replace(settings, seed=40), 3)
    assert [(film.seed, film.output.name) for film in films] == [
        (40, "film-1.mp4"),
        (41, "film-2.mp4"),
        (42, "film-3.mp4"),
    ]
    assert [film.output.name for film in variants_of(settings, 1)] == ["film-1.mp4"]
    assert numbered_films(Path("a.b.mp4"), 10)[0].name == "a.b-01.mp4"
    with pytest.raises(ValueError, match="leaves no seeds for 2 films"):
        variants_of(replace(settings, seed=MAX_SEED), 2)


@pytest.mark.parametrize("has_take", [True, False], ids=["takes", "no takes"])
def test_each_film_is_that_of_its_seed(mini: Mini, settings: RenderSettings, tmp_path: Path, has_take: bool) -> None:
    """Latents and frames of two films that are sampled together equal those of a render with the seed."""
    with Variants(variants_of(replace(settings, take=has_take), 2), mini=mini) as variants:
        assert variants.batch.at_once == 2 and any("2 films at once" in note for note in variants.notes)
        assert all(job.run() for job in variants.jobs)
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        output = tmp_path / str(seed) / "film.mp4"
        alone = make_take(mini, replace(settings, seed=seed, output=output))
        assert (read_video(tmp_path / f"film-{seed + 1}.mp4") == read_video(output)).all()
        assert (tmp_path / f"film-{seed + 1}.take").exists() == has_take
        if has_take:
            take = Take.load(tmp_path / f"film-{seed + 1}.take")
            assert take.settings == alone.settings and take.settings["seed"] == seed
            pairs = zip(latents(take), latents(alone), strict=True)
            assert all(float((one - other).norm() / other.norm()) <= 1e-6 for one, other in pairs)


def test_a_stop_keeps_the_blocks_of_all_films(mini: Mini, settings: RenderSettings, tmp_path: Path) -> None:
    """Both takes have the finished blocks, are released, and are resumed together; both films are complete then."""
    with Variants(variants_of(settings, 2), mini=mini, should_stop=after(20)) as variants:
        assert not variants.jobs[0].run()
    takes = [Take.load(tmp_path / f"film-{number}.take") for number in (1, 2)]
    counts = [take.block_count() for take in takes]
    assert 0 < counts[0] == counts[1] < BLOCKS
    with TakeLock(takes[0].folder), TakeLock(takes[1].folder):
        assert not (tmp_path / "film-2.mp4").exists()
    with Variants(resumed_variants(takes[0].folder, 2), mini=mini) as resumed:
        assert all(job.run() for job in resumed.jobs)
        assert resumed.jobs[0].film.report.sampled == list(range(counts[0], BLOCKS))
        assert resumed.jobs[1].film.report.sampled == []
    assert all(take.complete for take in takes)
    assert len(read_video(tmp_path / "film-2.mp4")) == takes[1].plan.video_frames


def test_a_stop_leaves_the_files_of_later_films(mini: Mini, settings: RenderSettings, tmp_path: Path) -> None:
    """A complete film whose turn does not come keeps its file and what a later render copies from it."""
    films = variants_of(settings, 2)
    take = make_take(mini, films[1])
    written = take.film.read_bytes()
    make_take(mini, films[0])
    with Variants(resumed_variants(tmp_path / "film-1.take", 2), mini=mini, should_stop=lambda: True) as variants:
        assert not variants.jobs[0].run()
    assert take.film.read_bytes() == written
    with Variants(resumed_variants(tmp_path / "film-1.take", 2), mini=mini) as variants:
        assert all(job.run() for job in variants.jobs)
        assert variants.jobs[1].render.copied == BLOCKS


def test_a_take_with_retakes_is_not_replaced(mini: Mini, settings: RenderSettings) -> None:
    """Nothing is made if the second of two films would remove retakes."""
    take = make_take(mini, variants_of(settings, 2)[1])
    retake(take, 1, seed=9).take.save()
    with pytest.raises(FileExistsError, match=r"film-2.take has retakes"):
        Variants(variants_of(settings, 2), mini=mini)
    assert not settings.output.with_name("film-1.mp4").exists()


def test_the_command(mini: Mini, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints each film's seed; a take without a number, and options that do not go together, are refused."""
    mini.save(tmp_path / "model")
    (tmp_path / "script.txt").write_text(SCRIPT)
    model = ["--model", str(tmp_path / "model"), "--size", "32x32", "--steps", "2"]
    script, film = str(tmp_path / "script.txt"), str(tmp_path / "film.mp4")
    assert main(["render", script, "-o", film, *model, "--seed", "3", "--variants", "2"]) == 0
    printed = capsys.readouterr().out
    assert "film-1.mp4: seed 3\n" in printed and "film-2.mp4: seed 4\n" in printed
    assert "note: 2 films at once" in printed and not (tmp_path / "film.mp4").exists()
    first = str(tmp_path / "film-1.take")
    for words, message in (
        ([script, "-o", film, "--variants", "1000"], "make 1 to 16"),
        ([script, "-o", film, "--variants", "2", "--one-film-a-line"], "leave one of them out"),
        ([script, "-o", film, "--variants", "2", "--dry-run"], "leave one of them out"),
        ([script, "--resume", first, "--variants", "2"], "leave SCRIPT and -o out"),
        (["--resume", str(tmp_path / "film-2.take"), "--variants", "2"], "not the first take"),
        (["--resume", first, "--variants", "3"], "film-3.take is not a take"),
    ):
        assert main(["render", *words]) == 2
        assert message in capsys.readouterr().err
