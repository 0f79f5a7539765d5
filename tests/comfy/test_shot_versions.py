"""Several versions of a shot from one memory: the one that is chosen is that of a straight render."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from PIL import Image

from .graphs import FILM, MINI, SAMPLER, Link, Prompt, film, film_frames, node, stream
from .host import Host, Start
from .run import Event, Json, Run
from .test_kept_takes import TIMEOUT_SECONDS, canvas, made, takes
from .test_takes import BLOCKS, SCRIPT, sampled

pytestmark = pytest.mark.comfy

VERSIONS = "30"


@pytest.fixture(scope="module")
def studio(start: Start) -> Iterator[Host]:
    """A server whose films keep their takes."""
    with start(keep=True) as host:
        yield host


def versions(source: Link, shot: int = 2, count: int = 3) -> Json:
    return node("LongLiveShotVersions", stream=source, vae=[MINI, 2], shot=shot, versions=count)


def asked(prompt: Prompt, shot: int = 2, count: int = 3) -> Prompt:
    """The prompt with the node that the canvas adds to it, in place of the one that writes the film."""
    return {**{id: one for id, one in prompt.items() if id != FILM}, VERSIONS: versions([SAMPLER, 0], shot, count)}


def with_seed(seed: int, shot: int = 2) -> str:
    lines = SCRIPT.rstrip("\n").split("\n")
    (line,) = [line for line in lines if line.startswith(f"Shot {shot} ")]
    return SCRIPT.replace(line, f"{line} @seed={seed}")


def test_a_chosen_version_is_that_of_a_straight_render(studio: Host) -> None:
    """Three versions of the second shot sample that shot alone; the script with a version's seed samples the rest."""
    made(studio, film(SCRIPT))
    run = made(studio, asked(film(SCRIPT)))
    assert sampled(run) == {"shot 2/2 · block 2/2"}  # films end with the shot
    assert run.outputs[VERSIONS]["text"] == ["shot 2\nversion 1: seed 1\nversion 2: seed 2\nversion 3: seed 3"]
    (take,) = takes(studio)
    assert [len(shot.versions) for shot in take.shots] == [1, 4, 1] and take.shots[1].chosen == 0
    stills = [Image.open(take.still(1, version)).tobytes() for version in range(4)]
    assert len(set(stills)) == 4
    run = made(studio, film(with_seed(2)))
    assert sampled(run) == {BLOCKS[2]} and takes(studio)[0].shots[1].chosen == 2
    frames = film_frames(studio, run)
    alone = made(studio, film(with_seed(2) + "\n"), None)
    assert torch.equal(frames, film_frames(studio, alone))


def test_a_cancel_keeps_what_is_finished(studio: Host) -> None:
    """The take has the versions that were finished, and the next run goes on with the one that had begun, if any."""
    made(studio, film(SCRIPT, seed=11))
    (take,) = [take for take in takes(studio) if take.settings["seed"] == 11]
    address = "/longlive/films"

    def cancel(run: Run, _: Event) -> None:
        (info,) = [one["versions"] for one in studio.get(address) if one["prompt_id"] == run.prompt_id] or [None]
        if info and info["made"]:
            studio.interrupt(run.prompt_id)

    run = studio.run(asked(film(SCRIPT, seed=11), 3, 16), TIMEOUT_SECONDS, extra_data=canvas(), on_event=cancel)
    assert not run.ok
    shot = type(take).load(take.folder).shots[2]
    assert 1 < len(shot.versions) <= 17  # those that are sampled at once are finished at once
    counts = [take.block_count(2, version) for version in range(len(shot.versions))]
    assert counts == [1] * len(counts)
    run = made(studio, asked(film(SCRIPT, seed=11), 3, 1))
    assert len(type(take).load(take.folder).shots[2].versions) == len(shot.versions) + 1


def test_a_take_of_save_take_has_versions_too(studio: Host) -> None:
    """Without a canvas; the blocks before the shot are made on the way."""
    save = node("LongLiveSaveTake", stream=[SAMPLER, 0], name_prefix="takes/film")
    prompt: Prompt = {**stream(SCRIPT, seed=21), "20": save, VERSIONS: versions(["20", 0], 2, 2)}
    run = made(studio, prompt, None)
    assert sampled(run) == {"shot 1/2 · block 1/2", "shot 2/2 · block 2/2"}
    assert run.outputs[VERSIONS]["text"] == ["shot 2\nversion 0: seed None\nversion 1: seed 1"]


def test_what_has_no_versions_is_refused(studio: Host) -> None:
    """A film in no take, the shots of a storyboard, a chain of samplers, and a shot that is not there."""
    for prompt, extra, why in (
        (asked(stream(SCRIPT)), {}, "this film is in no take"),
        (asked(stream(SCRIPT, storyboard="first")), canvas(), "begin with those of a storyboard"),
        (asked(film(SCRIPT), 9), canvas(), "shot 9: this film has 3 shots"),
    ):
        run = studio.run(prompt, TIMEOUT_SECONDS, extra_data=extra)
        assert not run.ok and why in str(run.error), run.error
