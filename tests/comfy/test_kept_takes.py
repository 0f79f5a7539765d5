"""Takes that save themselves: a film of the canvas goes on after a crash, and an edit samples only what it changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from longlive.longlive_core.take import Take
from PIL import Image

from .graphs import FILM, SAMPLER, Prompt, decoded, film, film_frames, film_path, kept_latent, latent, latents, stream
from .host import Host, serve
from .run import Run
from .test_chain import OTHER, SECONDS, SHOTS, chain
from .test_takes import BLOCKS, SCRIPT, Killed, sampled, saved, when

pytestmark = pytest.mark.comfy

TIMEOUT_SECONDS = 300
WORKFLOW = {"id": "7e0a7c4e-6d8c-4d0e-9a39-0d3f4f3a6b11", "nodes": []}
AUTO = Path("takes", "auto")
CHANGED = SCRIPT.replace("rests on the right", "sways on the right")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comfy")


@pytest.fixture(scope="module")
def survivor(comfy_path: Path, base: Path) -> Iterator[Host]:
    """A server behind one that was killed while it made the film of SCRIPT on a canvas."""
    with serve(comfy_path, base, keep=True) as host:

        def kill(_: Run) -> None:
            host.process.kill()
            host.process.wait(30)
            raise Killed

        with pytest.raises(Killed):
            host.run(film(SCRIPT), TIMEOUT_SECONDS, extra_data=canvas(), on_event=when(SAMPLER, 5, kill))
    (base / "custom_nodes" / "longlive").unlink()
    with serve(comfy_path, base, keep=True) as host:
        yield host


def canvas(workflow: dict[str, Any] = WORKFLOW) -> dict[str, Any]:
    """What the front end sends beside a prompt."""
    return {"extra_pnginfo": {"workflow": workflow}}


def made(host: Host, prompt: Prompt, workflow: dict[str, Any] | None = WORKFLOW) -> Run:
    run = host.run(prompt, TIMEOUT_SECONDS, extra_data={} if workflow is None else canvas(workflow))
    assert run.ok, run.error
    return run


def takes(host: Host) -> list[Take]:
    """The takes that saved themselves, in the order of their names."""
    return [Take.load(path) for path in sorted((host.base / "output" / AUTO).glob("*.take"))]


def line(run: Run) -> str:
    """What the node says of its film."""
    return run.outputs[FILM]["text"][0]


def straight(host: Host, script: str, **sampler: object) -> torch.Tensor:
    """The frames of a film that keeps no take."""
    count = len(takes(host))
    run = made(host, film(script + "\n", **sampler), None)
    assert len(takes(host)) == count
    return film_frames(host, run)


def test_a_killed_server_goes_on_without_a_save_take_node(survivor: Host) -> None:
    """Only missing blocks are sampled, and the film is that of an uninterrupted run; the take knows film and stills."""
    (take,) = takes(survivor)
    kept = take.block_count()
    assert 1 <= kept <= 2
    run = made(survivor, film(SCRIPT))
    assert sampled(run) == set(BLOCKS[kept:])
    (take,) = takes(survivor)
    assert take.complete and take.script.format().startswith("hero: a big red ring")
    assert torch.equal(film_frames(survivor, run), straight(survivor, SCRIPT))
    for shot in range(3):
        with Image.open(take.still(shot, 0)) as still:
            assert still.format == "JPEG" and max(still.size) <= 256
    assert {"film.json", "workflow.json", "pace.json"} <= {path.name for path in take.folder.iterdir()}
    assert film_path(survivor, run).name in (take.folder / "film.json").read_text()


def test_an_edit_samples_what_it_changed(survivor: Host) -> None:
    """Other blocks come from the take, whose edited shot has two versions, and their packets from the film before; the
    edit undone samples and decodes nothing."""
    made(survivor, film(SCRIPT))
    run = made(survivor, film(CHANGED))
    assert sampled(run) == {BLOCKS[2]} and "(2 of 3 blocks copied from earlier files)" in line(run)
    assert torch.equal(film_frames(survivor, run), straight(survivor, CHANGED))
    (take,) = takes(survivor)
    assert [len(shot.versions) for shot in take.shots] == [1, 1, 2] and take.still(2, 1).is_file()
    back = made(survivor, film(SCRIPT.replace("\n\n", "\n")))
    assert "(3 of 3 blocks copied from earlier files)" in line(back)
    assert torch.equal(film_frames(survivor, back), straight(survivor, SCRIPT))
    assert sampled(back) == set() and [len(shot.versions) for shot in takes(survivor)[0].shots] == [1, 1, 2]


def test_another_film_takes_over_the_blocks_that_stay(survivor: Host) -> None:
    """A longer last shot is a take of its own that samples only the blocks it adds; another seed samples all."""
    made(survivor, film(SCRIPT))
    count = len(takes(survivor))
    longer = SCRIPT.replace("Shot 3 (1 block)", "Shot 3 (2 blocks)")
    run = made(survivor, film(longer))
    assert sampled(run) == {"shot 3/3 · block 4/4"} and len(takes(survivor)) == count + 1
    assert "(3 of 4 blocks copied from earlier files)" in line(run)
    assert torch.equal(film_frames(survivor, run), straight(survivor, longer))
    run = made(survivor, film(SCRIPT, seed=4))
    assert sampled(run) == set(BLOCKS) and len(takes(survivor)) == count + 2
    run = made(survivor, film(SCRIPT, seed=5), {"id": "another workflow"})
    assert len(takes(survivor)) == count + 3


def test_two_readers_of_a_kept_stream_sample_it_once(survivor: Host) -> None:
    """A LATENT beside the film has the same blocks, whichever node reads the stream first."""
    prompt = {**film(SCRIPT, seed=6), **kept_latent([SAMPLER, 0])}
    run = made(survivor, prompt)
    lines = [line for line in run.texts[SAMPLER] if line.startswith(BLOCKS[0]) and " fps " in line]
    assert 1 <= len(lines) <= 4 and sampled(run) == set(BLOCKS)
    whole = made(survivor, {**stream(SCRIPT + "\n", seed=6), **kept_latent([SAMPLER, 0])}, None)
    assert torch.equal(latents(survivor, run), latents(survivor, whole))


def test_a_chain_keeps_its_film(survivor: Host) -> None:
    """Its nodes' cache emptied, Run samples nothing; a changed shot is a version of the same take."""
    before = {take.folder for take in takes(survivor)}
    first = made(survivor, chain(SHOTS[:3]))
    assert len(sampled(first)) == 3 and len(takes(survivor)) == len(before) + 1
    survivor.post("/free", {"unload_models": True, "free_memory": True})
    sleep(2)  # the host empties its cache when it is idle
    again = made(survivor, chain(SHOTS[:3]))
    assert sampled(again) == set() and torch.equal(latents(survivor, again), latents(survivor, first))
    changed = made(survivor, chain((*SHOTS[:2], OTHER)))
    assert sampled(changed) == {"shot 3/3 · block 3/3"} and len(takes(survivor)) == len(before) + 1
    (take,) = [take for take in takes(survivor) if take.folder not in before]
    assert take.complete and [len(shot.versions) for shot in take.shots] == [1, 1, 2]
    lines = [f"Shot {at} ({SECONDS}s): {text} @seed={seed}" for at, (text, seed) in enumerate((*SHOTS[:2], OTHER), 1)]
    whole = made(survivor, latent("\n".join(lines), 0), None)
    assert torch.equal(latents(survivor, changed), latents(survivor, whole))


def test_what_keeps_no_take(survivor: Host) -> None:
    """A stream with Save Take, a storyboard alone, and every film after the setting is switched off."""
    count = len(takes(survivor))
    made(survivor, {**saved(stream(SCRIPT, seed=7)), FILM: decoded(["20", 0])})
    made(survivor, film(SCRIPT, seed=7, storyboard="only"))
    survivor.post("/settings", {"LongLive.Takes.Keep": False})
    try:
        made(survivor, film(SCRIPT, seed=8))
    finally:
        survivor.post("/settings", {"LongLive.Takes.Keep": True})
    assert len(takes(survivor)) == count
    made(survivor, film(SCRIPT, seed=9))  # that of seed 8 is cached and does not run again
    (take,) = [take for take in takes(survivor) if take.settings["seed"] == 9]
    assert take.complete


def test_the_settings_of_a_films_user_hold(comfy_path: Path, tmp_path: Path) -> None:
    """With --multi-user, whose page asked for its films decides; the list of takes has its reader's limit."""
    with serve(comfy_path, tmp_path, "--multi-user", keep=True) as host:

        def ask(user: str, path: str, content: object = None) -> Any:  # noqa: ANN401
            data = None if content is None else json.dumps(content).encode()
            headers = {"Content-Type": "application/json", "Comfy-User": user}
            with urlopen(Request(host.url + path, data, headers), timeout=60) as answer:
                return json.loads(answer.read() or "null")

        keeps, drops = (host.post("/users", {"username": name}) for name in ("keeps", "drops"))
        ask(drops, "/settings", {"LongLive.Takes.Keep": False, "LongLive.Takes.Limit": 3})
        short = SCRIPT.splitlines()[2].replace("{hero}", "a big red ring")
        for seed, (user, count) in enumerate([(drops, 0), (keeps, 1), (drops, 1)]):
            ask(user, f"/longlive/films?client=page-of-{user}")
            run = host.run(film(short, seed=seed), TIMEOUT_SECONDS, canvas(), client=f"page-of-{user}")
            assert run.ok, run.error
            assert len(takes(host)) == count
        limits = [ask(user, "/longlive/takes")["limit"] for user in (keeps, drops)]
        assert limits == [10_000_000_000, 3_000_000_000]


def test_a_folder_that_cannot_be_written_ends_no_film(comfy_path: Path, tmp_path: Path) -> None:
    """The film is made, and its node says that it cannot go on after a restart."""
    with serve(comfy_path, tmp_path, keep=True) as host:
        (host.base / "output" / "takes").write_text("no folder")
        run = made(host, film(SCRIPT.splitlines()[2].replace("{hero}", "a big red ring")))
        assert "made without a take, so that it cannot go on after a restart" in run.outputs[FILM]["text"][0]
        assert len(film_frames(host, run)) == 29
