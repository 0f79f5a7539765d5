"""A take whose memory is in 2 bits names its format, and goes on and is made again to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take

from ..takes import MODEL, SCRIPT, VAE, after, latents, make_settings, remade, resume, same

# Films are rendered by both tests.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wide() -> Mini:
    """A random model with heads of 32 channels, which q2 can hold."""
    mini = Mini.random(0, ["the", "hero", "other"], replace(MODEL, dim=64), VAE)
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return mini


def settings(folder: Path, text: str = SCRIPT) -> RenderSettings:
    folder.mkdir(exist_ok=True)
    made = replace(make_settings(folder), memory=MemoryConfig(kv_format="q2"))
    (folder / "script.txt").write_text(text)
    return made


def rendered(mini: Mini, of: RenderSettings) -> Take:
    job = Job(of, mini=mini)
    assert job.run() and job.take is not None
    return job.take


def test_a_film_that_was_stopped_goes_on(wide: Mini, tmp_path: Path) -> None:
    """The rest of the film has the bits of a film that was never stopped, and the take says q2."""
    whole = rendered(wide, settings(tmp_path / "whole"))
    job = Job(settings(tmp_path / "stopped"), mini=wide, should_stop=after(10))
    assert not job.run() and job.take is not None
    resume(job.take, wide)
    take = Take.load(job.take.folder)
    assert take.settings["kv_format"] == "q2"
    assert all(same(latents(take), latents(whole)))


def test_a_retake_is_the_film_of_its_script(wide: Mini, tmp_path: Path) -> None:
    """A retake begins from the stored codes and centroids, and has the bits of a new film of the changed script."""
    take = rendered(wide, settings(tmp_path / "film"))
    again = remade(take, wide, 3, "ripple", seed=9).take
    anew = rendered(wide, settings(tmp_path / "anew", SCRIPT.replace("@seed=4", "@seed=9")))
    assert again is not None
    assert same(latents(again), latents(take)) == [True] * 3 + [False] * 3
    assert all(same(latents(again), latents(anew)))
