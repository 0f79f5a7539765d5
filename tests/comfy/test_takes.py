"""Takes in ComfyUI: a film survives its server, and one shot of it is made again while the others stay."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.lock import TakeLock
from longlive.longlive_core.training.world import Hero, WorldFilm, WorldShot, render
from PIL import Image

from .graphs import MINI, SAMPLER, SHORT, Prompt, kept_latent, latent, latents, node, save_lora, stream
from .host import Host, serve
from .run import Event, Refused, Run
from .test_chain import SCENE, extended, save_clip, shot

pytestmark = pytest.mark.comfy

TIMEOUT_SECONDS = 300
SAVE, LOAD, RETAKE = "20", "21", "22"
PREFIX = "takes/film"
NAME = "takes/film_00001.take"
SCRIPT = """hero: a big red ring

Shot 1 (1 block): {hero} sways on the left in front of a plain forest wall
Shot 2 (1 block): {hero} circles in the middle against a striped navy wall
Shot 3 (1 block): {hero} rests on the right against a plain wine wall
"""
BLOCKS = [f"shot {number}/3 · block {number}/3" for number in (1, 2, 3)]


class Killed(Exception):
    """The server is gone, as it was asked for."""


@dataclass(frozen=True)
class Survivor:
    """A server behind one that was killed in mid-film: `kept` blocks were on disk, `run` is the same prompt again."""

    host: Host
    kept: int
    run: Run

    def take(self, name: str = NAME) -> Take:
        return Take.load(self.host.base / "output" / name)

    def files(self) -> dict[str, bytes]:
        """Every block of the take."""
        return {str(path): path.read_bytes() for path in sorted(self.take().folder.rglob("*.safetensors"))}


def saved(source: Prompt | None = None, prefix: str = PREFIX, film: str = SAMPLER) -> Prompt:
    """A film that is kept, as LATENT in a file."""
    save = node("LongLiveSaveTake", stream=[film, 0], name_prefix=prefix)
    return {**(source or stream(SCRIPT)), SAVE: save, **kept_latent([SAVE, 0])}


def loaded(name: str = NAME, model: str = MINI) -> Prompt:
    """A take from disk."""
    load = node("LongLiveLoadTake", take=name, model=[model, 0], clip=[MINI, 1])
    return {MINI: node("LongLiveMini"), LOAD: load, **kept_latent([LOAD, 0])}


def retaken(
    seed: int, mode: str, source: Prompt | None = None, take: tuple[str, int] = (LOAD, 2), **more: object
) -> Prompt:
    """Its second shot made again."""
    settings = {"shot": 2, "seed": seed, "prompt": "", "mode": mode, **more}
    retake = node("LongLiveRetake", take=list(take), model=[MINI, 0], clip=[MINI, 1], **settings)
    return {**(source or loaded()), RETAKE: retake, **kept_latent([RETAKE, 0])}


def when(node_id: str, value: int, then: Callable[[Run], None]) -> Callable[[Run, Event], None]:
    """Does something once, at a step of a node's progress."""
    done: list[bool] = []

    def watch(run: Run, _: Event) -> None:
        states = run.progress[node_id]
        if not done and states and states[-1]["state"] == "running" and states[-1]["value"] >= value:
            done.append(True)
            then(run)

    return watch


def sampled(run: Run) -> set[str]:
    """Blocks whose steps were told, as `shot 2/3 · block 2/3`; one line more is told of a film's last block."""
    lines = [line for texts in run.texts.values() for line in texts]
    found = Counter(match[0] for line in lines if (match := re.match(r"shot \d/\d · block \d/\d(?= · \d+ fps)", line)))
    return {block for block, count in found.items() if count > 1}


@pytest.fixture(scope="module")
def survivor(comfy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survivor]:
    base = tmp_path_factory.mktemp("comfy")
    with serve(comfy_path, base) as host:

        def kill(_: Run) -> None:
            host.process.kill()
            host.process.wait(30)
            raise Killed

        with pytest.raises(Killed):
            host.run(saved(), TIMEOUT_SECONDS, on_event=when(SAMPLER, 5, kill))
    kept = Take.load(base / "output" / NAME).block_count()
    (base / "custom_nodes" / "longlive").unlink()
    with serve(comfy_path, base) as host:
        run = host.run(saved(), TIMEOUT_SECONDS)
        assert run.ok, run.error
        yield Survivor(host, kept, run)


def test_a_film_survives_its_server(survivor: Survivor) -> None:
    """Killed in mid-film and queued again on a new server, only what was missing is sampled, into the same take.

    The latents are those of a film that was never cut off, to the bit.
    """
    assert 1 <= survivor.kept <= 2
    assert sampled(survivor.run) == set(BLOCKS[survivor.kept :])
    assert (
        survivor.run.outputs[SAVE]["text"][0].splitlines()[1]
        == f"{survivor.kept} of 3 blocks were finished when this node ran"
    )
    host = survivor.host
    whole = host.run(latent(SCRIPT + "\n"), TIMEOUT_SECONDS)
    assert whole.ok, whole.error
    assert sampled(whole) == set(BLOCKS)
    assert torch.equal(latents(host, whole), latents(host, survivor.run))
    take = survivor.take()
    assert take.complete and [path.name for path in take.folder.parent.iterdir()] == ["film_00001.take"]
    assert "{hero} circles" in take.script.format()


def test_a_take_is_a_film(survivor: Survivor) -> None:
    """Loaded, it is the film that was made, and nothing is sampled; the list of takes has it."""
    info = survivor.host.get("/object_info/LongLiveLoadTake")["LongLiveLoadTake"]["input"]["required"]["take"]
    assert NAME in json.dumps(info)
    run = survivor.host.run(loaded(), TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert not sampled(run)
    assert torch.equal(latents(survivor.host, run), latents(survivor.host, survivor.run))


def test_keep_makes_one_shot(survivor: Survivor) -> None:
    """Retaken with `keep`, shot 2 alone is sampled and every file that was there stays; again, nothing is made."""
    before = survivor.files()
    run = survivor.host.run(retaken(9, "keep"), TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert sampled(run) == {BLOCKS[1]}
    after = survivor.files()
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 1
    made, old = latents(survivor.host, run), latents(survivor.host, survivor.run)
    assert [torch.equal(a, b) for a, b in zip(made.split(8, 2), old.split(8, 2), strict=True)] == [True, False, True]
    for _ in range(2):
        again = survivor.host.run(retaken(9, "keep"), TIMEOUT_SECONDS)
        assert again.ok, again.error
        assert not sampled(again) and survivor.files() == after
    assert [len(one.versions) for one in survivor.take().shots] == [1, 2, 1]


def test_ripple_makes_what_follows(survivor: Survivor) -> None:
    """Retaken with `ripple`, shots 2 and 3 are sampled, behind a shot 1 that stays; with the seed that the script has
    for it, this is the film of that script."""
    run = survivor.host.run(retaken(10, "ripple"), TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert sampled(run) == set(BLOCKS[1:])
    whole = survivor.host.run(
        latent(SCRIPT.replace("striped navy wall", "striped navy wall @seed=10")), TIMEOUT_SECONDS
    )
    assert whole.ok, whole.error
    assert torch.equal(latents(survivor.host, run), latents(survivor.host, whole))


def test_a_cancelled_retake_goes_on(survivor: Survivor) -> None:
    """Cancelled in shot 3 and queued again, in the graph that made the film: shot 2 of the version begun is not made
    again, and there is no other version."""
    prompt = retaken(11, "ripple", saved(), (SAVE, 1))
    host = survivor.host
    cancelled = host.run(prompt, TIMEOUT_SECONDS, on_event=when(RETAKE, 9, lambda run: host.interrupt(run.prompt_id)))
    assert cancelled.interrupted
    versions = [len(one.versions) for one in survivor.take().shots]
    # Another space is the same to the model and another node to the cache, as after a restart.
    prompt[RETAKE]["inputs"]["prompt"] = " "
    again = host.run(prompt, TIMEOUT_SECONDS)
    assert again.ok, again.error
    assert sampled(again) == {BLOCKS[2]}
    assert [len(one.versions) for one in survivor.take().shots] == versions


def test_a_chain_is_kept(survivor: Survivor, tmp_path: Path) -> None:
    """A chain of shots that begins with a picture: its take has a script, and its first shot can be retaken."""
    film = WorldFilm(Hero("ring", "red", "big"), (WorldShot("navy", "striped", "left", "sway", "still", 1),))
    frame = render(film)[0]
    Image.fromarray(frame).save(tmp_path / "start.png")
    name = survivor.host.upload_image(tmp_path / "start.png")
    chain = {
        MINI: node("LongLiveMini"),
        "10": node("LoadImage", image=name),
        "11": shot("a big red ring sways {on} the left", 1, start_image=["10", 0], vae=[MINI, 2]),
        "12": shot("the hero rests on the right", 2, "11"),
    }
    run = survivor.host.run(saved(chain, "takes/chain", "12"), TIMEOUT_SECONDS)
    assert run.ok, run.error
    load = loaded("takes/chain_00001.take")
    assert "\\{on\\}" in survivor.take("takes/chain_00001.take").script.format()
    again = survivor.host.run(retaken(5, "keep", load, shot=1), TIMEOUT_SECONDS)
    assert again.ok, again.error
    assert sampled(again) == {"shot 1/2 · block 1/2"}
    old, new = latents(survivor.host, run), latents(survivor.host, again)
    assert torch.equal(old[:, :, :1], new[:, :, :1]) and torch.equal(old[:, :, 8:], new[:, :, 8:])
    assert not torch.equal(old[:, :, 1:8], new[:, :, 1:8])


def test_a_film_goes_on_from_a_take(survivor: Survivor) -> None:
    """A shot behind a loaded take is the only one that is sampled; in a take of its own, it is made once."""
    source = {**loaded(), "33": shot("a big red ring hops near the bottom", 5, LOAD)}
    name = "takes/longer_00001.take"
    run = survivor.host.run(saved(source, "takes/longer", "33"), TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert sampled(run) == {"shot 4/4 · block 4/4"}
    source["33"]["inputs"]["seconds"] = 1.3  # one block too, and another node to the cache
    again = survivor.host.run(saved(source, "takes/longer", "33"), TIMEOUT_SECONDS)
    assert again.ok, again.error
    assert not sampled(again) and survivor.take(name).complete
    assert torch.equal(latents(survivor.host, again), latents(survivor.host, run))


def test_a_given_video_is_kept(survivor: Survivor) -> None:
    """A film that goes on from a video: of its take, only what is behind the video is made again, to the bit."""
    host = survivor.host
    chain = {**extended(save_clip(host, 61)), "33": shot(SCENE, 5, "32", cut=False)}
    run = host.run(saved(chain, "takes/extended", "33"), TIMEOUT_SECONDS)
    assert run.ok, run.error
    take = survivor.take("takes/extended_00001.take")
    assert [one.versions[0].made for one in take.shots] == ["video", "render"]
    take.path(take.plan.blocks[-1]).unlink()
    again = host.run(loaded("takes/extended_00001.take"), TIMEOUT_SECONDS)
    assert again.ok, again.error
    assert sampled(again) == {"shot 2/2 · block 3/3"}
    assert torch.equal(latents(host, again), latents(host, run))


def test_a_take_of_the_command_line(survivor: Survivor) -> None:
    """A render's take plays, and a shot of it can be retaken; the node says what it cannot check."""
    folder = survivor.host.base / "output" / "cli"
    folder.mkdir()
    (folder / "script.txt").write_text(SHORT)
    job = Job(RenderSettings(folder / "script.txt", folder / "film.mp4", size="64x64"))
    assert job.run() and job.take is not None
    name = "cli/film.take"
    plain = survivor.host.run(loaded(name), TIMEOUT_SECONDS)
    assert plain.ok, plain.error
    assert not sampled(plain) and "cannot be checked" not in plain.outputs[LOAD]["text"][0]
    run = survivor.host.run(retaken(4, "ripple", loaded(name), shot=1), TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert sampled(run) == {"shot 1/1 · block 1/1"}
    told = (
        "made on the command line with model mini, lora None, fp8 False; whether this MODEL is the same cannot be "
        "checked"
    )
    assert told in run.outputs[RETAKE]["text"][0]
    assert Take.load(folder / "film.take").shots[0].chosen == 1


def test_a_cut_off_storyboard_film_is_its_workflows(survivor: Survivor) -> None:
    """Made with storyboard first, an opening that is missing is made by the film's own workflow only, which the message
    says; a block behind an opening that is there is made from the take, to the bit."""
    host, name = survivor.host, "takes/board_00001.take"
    script = SCRIPT.replace("(1 block)", "(2 blocks)", 2)
    run = host.run(saved(stream(script, storyboard="first"), "takes/board"), TIMEOUT_SECONDS)
    assert run.ok, run.error
    take = survivor.take(name)
    take.path(take.plan.blocks[4]).unlink()
    refused = host.run(loaded(name), TIMEOUT_SECONDS)
    assert refused.error is not None
    assert "has no block 4, the storyboard's block of shot 3" in refused.error["exception_message"]
    whole = host.run(saved(stream(script + "\n", storyboard="first"), "takes/board"), TIMEOUT_SECONDS)
    assert whole.ok, whole.error
    assert torch.equal(latents(host, whole), latents(host, run)) and survivor.take(name).complete
    take.path(take.plan.blocks[3]).unlink()
    again = host.run(loaded(name), TIMEOUT_SECONDS)
    assert again.ok, again.error
    assert sampled(again) == {"shot 2/3 · block 4/5"}
    assert torch.equal(latents(host, again), latents(host, run))


def test_a_take_in_use_stays_as_it_is(survivor: Survivor) -> None:
    """While another process makes it, a retake says so and writes nothing."""
    take, host = survivor.take(), survivor.host
    with TakeLock(take.folder):
        run = host.run(retaken(78, "ripple"), TIMEOUT_SECONDS)
    assert run.error is not None and "is being made by another process" in run.error["exception_message"]
    assert survivor.take() == take
    again = host.run(retaken(78, "ripple"), TIMEOUT_SECONDS)
    assert again.ok, again.error


def with_lora(prompt: Prompt, mode: str, strength: float = 1.0) -> Prompt:
    """Mini with a LoRA in every node that samples."""
    lora = {"lora_name": "other.safetensors", "strength": strength, "mode": mode}
    changed = {
        id: {**one, "inputs": {key: ["30", 0] if value == [MINI, 0] else value for key, value in one["inputs"].items()}}
        for id, one in prompt.items()
    }
    return {**changed, "30": node("LongLiveDMDLora", model=[MINI, 0], **lora)}


@pytest.fixture
def lora(survivor: Survivor) -> str:
    return save_lora(survivor.host, "other.safetensors", {"blocks.0.self_attn.q": (192, 192)})


@pytest.mark.usefixtures("lora")
@pytest.mark.parametrize("mode", ["merge", "bypass"])
def test_a_take_knows_its_loras(survivor: Survivor, mode: str) -> None:
    """The model is the same whether its LoRA is in the weights by now or not; with another strength it is another."""
    host, folder = survivor.host, survivor.take().folder.parent

    def takes(strength: float, ending: str = "") -> tuple[list[str], bool]:
        run = host.run(with_lora(saved(stream(SHORT + ending), f"takes/{mode}"), mode, strength), TIMEOUT_SECONDS)
        assert run.ok, run.error
        return sorted(path.name for path in folder.glob(f"{mode}_*")), bool(sampled(run))

    assert takes(0.9) == ([f"{mode}_00001.take"], True)
    assert takes(0.9, "\n") == ([f"{mode}_00001.take"], False)
    assert takes(0.8) == ([f"{mode}_00001.take", f"{mode}_00002.take"], True)
    assert takes(0.9, "\n\n") == ([f"{mode}_00001.take", f"{mode}_00002.take"], False)


@pytest.mark.usefixtures("lora")
def test_what_cannot_be_made_is_said(survivor: Survivor) -> None:
    """A take that is not there, and a retake with other weights than the take was made with."""
    with pytest.raises(Refused, match="is not in the output folder"):
        survivor.host.queue(loaded("takes/none.take"))
    with pytest.raises(Refused, match="is not in the output folder"):
        survivor.host.queue(loaded("../output/../../x.take"))
    run = survivor.host.run(with_lora(retaken(77, "keep"), "merge"), TIMEOUT_SECONDS)
    assert run.error is not None and "was made with other weights" in run.error["exception_message"]
    assert all(version.seed != 77 for version in survivor.take().shots[1].versions)
