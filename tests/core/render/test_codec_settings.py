"""A film can be written by any codec, its take records which, and no block depends on it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.render import add_arguments, render_settings
from longlive.longlive_core.cli.run_job import how_to_resume
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take
from longlive.longlive_core.video import read_video

from ..takes import make_mini, make_settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A film in vp9, made."""
    settings = make_settings(tmp_path_factory.mktemp("order"))
    job = Job(
        replace(settings, output=settings.output.with_suffix(".webm"), codec="vp9", quality="best"), mini=make_mini()
    )
    assert job.run()
    return job


def arguments(*words: str) -> argparse.Namespace:
    """What the user of `longlive render` has typed."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_a_take_goes_on_in_the_codec_it_was_begun_with(whole: Job) -> None:
    """A resumed film has the same codec without an option, and the command to resume has no option for it."""
    assert whole.take is not None
    again = RenderSettings.resumed(whole.take.folder)
    assert (again.output, again.codec, again.quality) == (whole.settings.output, "vp9", "best")
    before = whole.settings.output.read_bytes()
    job = Job(again, mini=make_mini())
    assert job.run()
    assert again.output.read_bytes() == before
    assert "--codec" not in how_to_resume(arguments("script.txt"), job)


def test_the_same_blocks_make_a_film_in_another_codec(whole: Job) -> None:
    """Nothing is sampled again; the film is beside the first one, with the extension of its codec."""
    assert whole.take is not None
    settings = RenderSettings.resumed(whole.take.folder, None, {"codec": "png"})
    assert settings.output == whole.settings.output.with_suffix("")
    job = Job(settings, mini=make_mini())
    assert job.run()
    assert job.film.report is not None and not job.film.report.sampled
    pictures, film = read_video(settings.output), read_video(whole.settings.output)
    assert pictures.shape == film.shape and pictures.dtype == torch.uint8
    assert torch.allclose(film.float().mean((1, 2)), pictures.float().mean((1, 2)), atol=4)
    assert "--codec png" in how_to_resume(arguments("script.txt"), job)
    assert Take.load(whole.take.folder).output["codec"] == "vp9"


def test_a_film_of_another_extension_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    """A film whose extension is not that of its codec is refused with the right name, before a model is loaded."""
    settings = replace(make_settings(tmp_path), codec="vp9", model=str(tmp_path / "no such model"))
    with pytest.raises(ValueError, match=r"a film in vp9 is a webm; name it .*film\.webm"):
        Job(settings)


def test_codec_and_quality_are_words_of_the_command(tmp_path: Path) -> None:
    """`--codec` and `--quality` set the encoder; without them the extension sets the codec and the quality is high."""
    words = (str(tmp_path / "script.txt"), "-o", "film.mov", "--codec", "prores", "--quality", "best")
    settings = render_settings(arguments(*words))
    assert (settings.codec, settings.quality) == ("prores", "best")
    for film, codec in (("film.mp4", "h264"), ("film.mov", "prores"), ("film.webm", "vp9")):  # the name says it
        settings = render_settings(arguments(words[0], "-o", film))
        assert (settings.codec, settings.quality) == (codec, "high")
