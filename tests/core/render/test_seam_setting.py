"""The setting `seam` of a render: its default, what a take records of it, and takes that do not record it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from longlive.longlive_core.cli.arguments import add_setting_arguments, given_settings
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take, retake

from ..takes import latents, make_take, remade, resume, same

pytestmark = pytest.mark.slow


def test_embedded_models_are_aligned_and_checkpoints_are_plain(tmp_path: Path) -> None:
    """The embedded model and a folder that `train mini` made are aligned, a checkpoint is plain; a choice overrides."""
    film, checkpoint = tmp_path / "film.mp4", tmp_path / "model.safetensors"
    checkpoint.touch()
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "transformer.safetensors").touch()
    seams = {"mini": "align", str(trained): "align", str(checkpoint): "plain"}
    for model, seam in seams.items():
        assert RenderSettings(None, film, model).sampled_seam == seam
        assert RenderSettings(None, film, model, seam="plain").sampled_seam == "plain"
        assert RenderSettings(None, film, model, seam="align").sampled_seam == "align"


def test_a_take_records_that_it_is_aligned(mini: Mini, settings: RenderSettings) -> None:
    """A plain take records nothing, like the takes of versions that had only plain seams."""
    aligned = make_take(mini, settings)
    assert aligned.settings["seam"] == "align"
    plain = make_take(mini, replace(settings, output=settings.output.with_name("plain.mp4"), seam="plain"))
    assert "seam" not in plain.settings
    assert {**plain.settings, "seam": "align"} == aligned.settings
    assert same(latents(aligned), latents(plain)) == [True] + [False] * 5


@pytest.mark.parametrize("seam", ["plain", "align"])
def test_a_take_goes_on_with_its_own_seams(mini: Mini, settings: RenderSettings, seam: Any) -> None:  # noqa: ANN401
    """Resumed and retaken, a take has the seams that it was begun with, whatever the default is."""
    take = make_take(mini, replace(settings, seam=seam))
    whole = latents(take)
    assert RenderSettings.resumed(take.folder).sampled_seam == seam
    take.path(take.plan.blocks[1]).unlink()
    job, notes = resume(take, mini)
    assert job.film.report.sampled == [1] and all(same(latents(take), whole))
    assert not any("seam" in note for note in notes)
    job = remade(take, mini, 1, "ripple", seed=9)
    other = Job(replace(settings, output=settings.output.with_name("other.mp4"), seam=seam), mini=mini)
    assert other.run() and other.take is not None
    changed = retake(other.take, 1, seed=9).take
    assert Job(RenderSettings.resumed(other.take.folder), take=changed, mini=mini).run()
    assert all(same(latents(job.take or take), latents(changed)))


@pytest.mark.parametrize(("was", "now"), [("plain", "align"), ("align", "plain")])
def test_other_seams_are_refused(mini: Mini, settings: RenderSettings, was: Any, now: Any) -> None:  # noqa: ANN401
    """A take is not continued with another setting; its own may be repeated. The error names both."""
    take = make_take(mini, replace(settings, seam=was))
    with pytest.raises(ValueError, match=f"seam was {was}, now {now}"):
        RenderSettings.resumed(take.folder, given={"seam": now})
    assert RenderSettings.resumed(take.folder, given={"seam": was}).sampled_seam == was
    with pytest.raises(ValueError, match=f"seam was {was}, now {now}"):
        Job(replace(settings, seam=now), take=take, mini=mini)
    assert Take.load(take.folder) == take


def test_the_command_line_has_the_option() -> None:
    """Without it nothing is given, so that a take keeps its own; another value is refused."""
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser)
    parser.add_argument("--output", type=Path)
    assert given_settings(parser.parse_args([])) == {}
    assert given_settings(parser.parse_args(["--seam", "align"])) == {"seam": "align"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--seam", "smooth"])
