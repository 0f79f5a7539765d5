"""A film as a chain of shots: one of them changed, those before it stay; a video from elsewhere goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from longlive.longlive_core.evaluation.measures import psnr
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.training.world import Hero, WorldFilm, WorldShot, render
from longlive.longlive_core.types import LATENT_CHANNELS
from longlive.longlive_core.video import VideoWriter, read_video

from ..core.video.clips import onset
from ..core.video.films import hear, tone
from .graphs import MINI, Prompt, decoded, film_frames, film_path, kept_latent, latent, latents, node
from .host import Host, Start
from .run import Event, Run

pytestmark = pytest.mark.comfy

SECONDS = 1.33
TIMEOUT_SECONDS = 300
BLOCK = 8
FILM = "90"
SHOTS = (
    ("a big red ring sways on the left in front of a striped navy wall", 11),
    ("a big red ring bobs in the middle against a plain wine wall", 12),
    ("the hero circles at the top in front of a checked forest wall", 13),
    ("it rests on the right against a striped grey wall", 14),
    ("a big red ring hops near the bottom against a plain brown wall", 15),
)
OTHER = ("a big red ring rests on the left against a plain black wall", 24)

Lines = tuple[tuple[str, int], ...]


def shot(prompt: str, seed: int, before: str | None = None, **inputs: object) -> object:
    """One node of a chain; `before` is the node whose film it goes on."""
    state = {} if before is None else {"state": [before, 1]}
    settings = {"seconds": SECONDS, "width": 128, "height": 128, "steps": 4, "guidance": 1.0}
    links = {"model": [MINI, 0], "clip": [MINI, 1]}
    return node("LongLiveShot", **links, prompt=prompt, seed=seed, **{**settings, **state, **inputs})


def chain(shots: Lines = SHOTS) -> Prompt:
    """Nodes 11, 12 … of shots in a row, the last one's film in a file and as LATENT."""
    ids = [str(11 + index) for index in range(len(shots))]
    nodes = {
        id: shot(prompt, seed, before) for id, before, (prompt, seed) in zip(ids, [None, *ids], shots, strict=False)
    }
    last = [ids[-1], 0]
    return {MINI: node("LongLiveMini"), **nodes, FILM: decoded(last), **kept_latent(last)}


def edited(shots: Lines = SHOTS) -> Lines:
    return (*shots[:3], OTHER, *shots[4:])


def steps(run: Run) -> set[str]:
    """The blocks of which a line of progress tells steps: `shot 4/5 · block 4/5`."""
    lines = [line for texts in run.texts.values() for line in texts]
    return {found[0] for line in lines if (found := re.match(r"shot \d/\d · block \d/\d(?= · \d+ fps)", line))}


@pytest.fixture(scope="module")
def host(start: Start) -> Iterator[Host]:
    """A server of its own: what its cache holds is ours."""
    with start() as own:
        yield own


@pytest.fixture(scope="module")
def made(host: Host) -> Run:
    run = host.run(chain(), TIMEOUT_SECONDS)
    assert run.ok, run.error
    return run


def test_each_shot_shows_its_own_progress(made: Run) -> None:
    """Every node of the chain counts its own block's steps, is finished at the end, and plays pictures of its shot."""
    ids = [str(11 + index) for index in range(len(SHOTS))]
    for index, id in enumerate(ids, 1):
        states = made.progress[id]
        assert {state["max"] for state in states} >= {4}
        assert (states[-1]["value"], states[-1]["state"]) == (states[-1]["max"], "finished")
        assert any(text.startswith(f"shot {index}/5 · block {index}/5 · ") for text in made.texts[id])
        assert made.previews[id]


def test_a_shot_names_its_place_in_the_film(made: Run) -> None:
    """The text on a shot's node has a line with its time range; words that Mini does not know would be a second one."""
    assert made.outputs["12"]["text"] == ["shot 2: 1.21 s to 2.54 s, 1 block"]


def test_a_changed_shot_leaves_those_before_it(host: Host, made: Run) -> None:
    """With another prompt and seed in shot 4 only shots 4 and 5 and what draws them run, and only they are sampled.

    Shots 1 to 3 are the same to the bit.
    """
    before = latents(host, made)
    run = host.run(chain(edited()), TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert sorted(run.executed) == sorted(["14", "15", "7", "8", FILM])
    assert steps(run) == {"shot 4/5 · block 4/5", "shot 5/5 · block 5/5"}
    assert run.texts["14"][0] == "3 of 5 blocks are finished already"
    after = latents(host, run)
    assert before.shape == after.shape == (1, LATENT_CHANNELS, 5 * BLOCK, 8, 8)
    assert torch.equal(after[:, :, : 3 * BLOCK], before[:, :, : 3 * BLOCK])
    for index in (3, 4):
        part = slice(index * BLOCK, (index + 1) * BLOCK)
        assert not torch.equal(after[:, :, part], before[:, :, part])


def test_a_chain_is_the_script_with_seeds(host: Host, made: Run) -> None:
    """The same shots as one script, each with its own seed and the sampler at seed 0, are the same film."""
    script = "\n".join(f"Shot {i} ({SECONDS}s): {prompt} @seed={seed}" for i, (prompt, seed) in enumerate(SHOTS, 1))
    assert len(ShotScript.parse(script).plan().blocks) == len(SHOTS)
    whole = host.run(latent(script, 0), TIMEOUT_SECONDS)
    assert whole.ok, whole.error
    assert steps(whole) == {f"shot {i}/5 · block {i}/5" for i in range(1, 6)}
    difference = (latents(host, whole) - latents(host, made)).abs().max()
    assert difference == 0, difference


def test_a_cancelled_chain_goes_on(host: Host) -> None:
    """Cancelled in shot 3 and queued again, blocks that were finished are not sampled again; it is the same film."""
    shots = tuple((prompt, seed + 100) for prompt, seed in SHOTS)
    stopped: list[float] = []

    def stop(run: Run, _: Event) -> None:
        states = run.progress["13"]
        if not stopped and states and states[-1]["max"] == 4 and 1 <= states[-1]["value"] < 4:
            stopped.append(states[-1]["value"])
            host.interrupt(run.prompt_id)

    cancelled = host.run(chain(shots), TIMEOUT_SECONDS, on_event=stop)
    assert cancelled.interrupted
    assert not cancelled.previews["14"]
    again = host.run(chain(shots), TIMEOUT_SECONDS)
    assert again.ok, again.error
    assert not {MINI, *map(str, range(11, 16))} & set(again.executed)
    kept = int(re.match(r"(\d) of 5 blocks are finished already", again.texts["13"][0])[1])  # type: ignore[index]
    assert kept == 2
    assert steps(again) == {f"shot {i}/5 · block {i}/5" for i in (3, 4, 5)}
    # Another space at the end is the same to the model and another node to the cache.
    fresh = chain(tuple((prompt + " ", seed) for prompt, seed in shots))
    whole = host.run(fresh, TIMEOUT_SECONDS)
    assert whole.ok, whole.error
    assert len(steps(whole)) == 5
    assert torch.equal(latents(host, again), latents(host, whole))


CLIP = 100  # 7 frames too many for whole blocks
SCENE = "a big red ring sways on the left in front of a striped navy wall"


def save_clip(host: Host, frames: int = CLIP) -> str:
    """A clip of the world's own renderer, in the input folder as an upload is; returns its name."""
    shot = WorldShot("navy", "striped", "left", "sway", "still", frames)
    path = host.base / "input" / f"clip{frames}.mp4"
    with VideoWriter(path, width=128, height=128, fps=24) as writer:
        writer.write(render(WorldFilm(Hero("ring", "red", "big"), (shot,))))
    return path.name


def extended(name: str) -> Prompt:
    """A clip as a film to go on from: node 32."""
    links = {"model": [MINI, 0], "clip": [MINI, 1], "vae": [MINI, 2], "frames": ["31", 0]}
    return {
        MINI: node("LongLiveMini"),
        "30": node("LoadVideo", file=name),
        "31": node("GetVideoComponents", video=["30", 0]),
        "32": node("LongLiveExtendVideo", **links, prompt=SCENE, width=128, height=128, fps=["31", 2]),
    }


def test_a_video_from_elsewhere_goes_on(host: Host, record_property: pytest.RecordProperty) -> None:
    """The film begins with the clip's last whole blocks, as good as the VAE shows them, and no frame jumps at the join.

    The step at the join is compared with those between other latent frames around it. What goes on in the same scene
    does not jump; a cut there would by far.
    """
    name = save_clip(host)
    prompt = extended(name) | {
        "33": shot(SCENE, 5, "32", seconds=2.66, cut=False),
        FILM: decoded(["33", 0]),
        "40": node("ImageFromBatch", image=["31", 0], batch_index=CLIP - 93, length=93),
        "41": node("VAEEncode", pixels=["40", 0], vae=[MINI, 2]),
        "42": node("SaveLatent", samples=["41", 0], filename_prefix="core"),
        **kept_latent(["32", 0]),
    }
    run = host.run(prompt, TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert "the first 7 frames are left out" in run.outputs["32"]["text"][0]
    assert torch.allclose(latents(host, run), latents(host, run, "42"), atol=1e-4)
    frames, clip = film_frames(host, run, FILM).numpy(), read_video(host.base / "input" / name).numpy()
    assert len(frames) == 93 + 2 * 32
    kept = psnr(frames[:93], clip[-93:])
    moved = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    join, around = moved[92], np.concatenate([moved[92 - 16 : 92 : 4], moved[96:112:4]])
    record_property("psnr", kept)
    record_property("join_over_around", float(join / around.mean()))
    assert kept > 28
    assert join < 2 * around.mean(), (join, around)
    assert steps(run) == {"shot 2/2 · block 4/5", "shot 2/2 · block 5/5"}


def test_a_video_of_another_rate_keeps_its_speed_and_its_sound(host: Host) -> None:
    """A VIDEO of 60 frames a second becomes a film at 24 by time, with its sound from the first frame on, said."""
    shot = WorldShot("navy", "striped", "left", "sway", "still", 150)
    clip = render(WorldFilm(Hero("ring", "red", "big"), (shot,)))
    path = host.base / "input" / "clip60.mp4"
    with VideoWriter(path, width=128, height=128, fps=60, audio=tone(2.5, 48_000, 2, at=1.5)) as writer:
        writer.write(clip)
    prompt = extended(path.name) | {FILM: decoded(["32", 0], audio=["32", 2])}
    prompt["32"]["inputs"] |= {"frames": ["30", 0], "fps": 24.0}
    run = host.run(prompt, TIMEOUT_SECONDS)
    assert run.ok, run.error
    said = run.outputs["32"]["text"][0]
    assert "encoded 29 of 60 frames" in said and "the first 31 frames are left out" in said
    assert "60 frames per second: read at 24" in said and "AUDIO" in said
    shown, frames = film_frames(host, run, FILM), torch.as_tensor(clip)
    by_time = [min(149, round(2.5 * (31 + n))) for n in range(29)]
    by_count = list(range(150 - 29, 150))
    assert psnr(shown.numpy(), frames[by_time].numpy()) > psnr(shown.numpy(), frames[by_count].numpy()) + 3
    heard, heard_rate = hear(film_path(host, run, FILM))
    assert onset(heard[0], heard_rate) == pytest.approx(1.5 - 31 / 24, abs=0.005)


def test_a_clip_too_short_is_refused(host: Host) -> None:
    """Below a block there is nothing to go on from; the error says how much is needed and what else there is."""
    run = host.run(extended(save_clip(host, 28)) | {FILM: decoded(["32", 0])}, 60)
    assert run.error is not None
    assert "the clip has 28 frames" in run.error["exception_message"]
    assert "29 frames at least" in run.error["exception_message"]
