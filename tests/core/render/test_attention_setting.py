"""The setting `attention` of a render: its note, and what a take records of it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
from longlive.longlive_core.cli.arguments import add_setting_arguments, given_settings
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings

from ..takes import latents, make_take, same


@pytest.mark.slow
def test_fp8_attention_is_a_setting_of_the_take(mini: Mini, settings: RenderSettings) -> None:
    """It changes every block and is recorded; usual attention is not, as in takes of versions without the setting."""
    usual = make_take(mini, settings)
    job = Job(replace(settings, output=settings.output.with_name("fp8.mp4"), attention="fp8"), mini=mini)
    assert job.run() and job.take is not None
    assert any("fp8 attention: emulated in" in note for note in job.notes)
    assert "attention" not in usual.settings
    assert {**usual.settings, "attention": "fp8"} == job.take.settings
    assert not any(same(latents(job.take), latents(usual)))
    assert RenderSettings.resumed(job.take.folder).attention == "fp8"
    with pytest.raises(ValueError, match="attention was usual, now fp8"):
        RenderSettings.resumed(usual.folder, given={"attention": "fp8"})


def test_the_command_line_has_the_option() -> None:
    """Without it nothing is given, so that a take keeps its own; another value is refused."""
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser)
    parser.add_argument("--output", type=Path)
    assert given_settings(parser.parse_args(["--attention", "fp8"])) == {"attention": "fp8"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--attention", "int8"])
