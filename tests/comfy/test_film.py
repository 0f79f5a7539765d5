"""A creator's film: what is seen while it is made, what is in the file, and what another queue costs."""

from __future__ import annotations

import json
import re
import shutil
import wave
from collections import Counter
from pathlib import Path

import av
import pytest
import torch
from longlive.longlive_core.evaluation.probe import read_frame
from PIL import Image
from torch import Tensor

from .graphs import (
    FILM,
    MINI,
    SAMPLER,
    SCRIPT,
    SHORT,
    decoded,
    film,
    film_frames,
    film_path,
    kept_latent,
    latent,
    latents,
    node,
    plan_of,
    sampled,
    stream,
)
from .host import ROOT, Host, Start
from .run import Run

pytestmark = pytest.mark.comfy

NODES = {
    "LongLiveModelLoader",
    "LongLiveMini",
    "LongLiveDMDLora",
    "LongLiveShotScript",
    "LongLiveEncodeShots",
    "LongLiveSinkMemory",
    "LongLiveStreamingSampler",
    "LongLiveAsyncDecode",
    "LongLiveStreamToLatent",
    "LongLiveStreamToImages",
    "LongLiveConvertCheckpoint",
    "LongLiveShot",
    "LongLiveExtendVideo",
    "LongLiveSaveTake",
    "LongLiveLoadTake",
    "LongLiveRetake",
    "LongLiveShotVersions",
    "LongLiveStoryboard",
    "LongLiveTrainLora",
    "LongLiveMultiGPU",
    "LongLiveCast",
    "LongLiveSaveCast",
}
LINE = re.compile(r"shot (\d+)/2 · block (\d+)/6 · \d+ fps · \d+:\d\d left")
SEED = 21
TWO = SHORT + "\nShot 2 (1.33s): a big red ring rests on the left against a plain wine wall"


@pytest.fixture(scope="module")
def made(comfy: Host) -> Run:
    """The film of two shots, made once for the tests that look at it."""
    run = comfy.run(film(seed=SEED), 90, {"extra_pnginfo": {"workflow": {"nodes": [], "name": "kept"}}})
    assert run.ok, run.error
    return run


def test_every_node_explains_itself(comfy: Host) -> None:
    """All nodes are there, each with a description, search words and a tooltip on every input and named output."""
    info = {name: entry for name, entry in comfy.get("/object_info").items() if name.startswith("LongLive")}
    assert set(info) == NODES
    for name, entry in info.items():
        assert entry["description"], name
        assert "longlive" in entry["search_aliases"], name
        inputs = {**entry["input"].get("required", {}), **entry["input"].get("optional", {})}
        silent = [key for key, (_, *options) in inputs.items() if not (options and options[0].get("tooltip"))]
        assert silent == [], name


def test_the_film_plays_and_shows_its_shots(comfy: Host, made: Run) -> None:
    """The file has the planned frames at 24 fps, and each shot stands before the wall that its line asks for."""
    plan = plan_of()
    with av.open(str(film_path(comfy, made))) as file:
        assert file.streams.video[0].average_rate == 24
    frames = film_frames(comfy, made)
    assert frames.shape == (plan.video_frames, 128, 128, 3)
    half = plan.video_frames // 2
    for part, wall in ((frames[8 : half - 8], "forest"), (frames[half + 8 :], "navy")):
        votes = Counter(read_frame(frame.numpy()).background for frame in part[::8])
        assert votes[wall] >= 0.9 * votes.total(), votes


def test_the_node_names_its_file(comfy: Host, made: Run) -> None:
    """The last line on the film's node has the file, below the output folder, and its length."""
    plan, path = plan_of(), film_path(comfy, made).relative_to(comfy.base / "output").as_posix()
    assert made.outputs[FILM]["text"] == [f"{path}: {plan.video_frames} frames, {plan.seconds:.2f} s"]


def test_the_workflow_travels_in_the_file(comfy: Host, made: Run) -> None:
    """The file names prompt and workflow as JSON, so that dropping it on the canvas opens the graph that made it."""
    with av.open(str(film_path(comfy, made))) as file:
        kept = file.metadata
    assert json.loads(kept["prompt"])[SAMPLER]["inputs"]["seed"] == SEED
    assert json.loads(kept["workflow"])["name"] == "kept"


def test_the_sampler_shows_how_far_the_film_is(made: Run) -> None:
    """Progress is on the sampler's node: it only grows, reaches its maximum and ends finished, with a line of words."""
    states = made.progress[SAMPLER]
    values = [state["value"] for state in states if state["max"] == 24]
    assert values == sorted(values)
    assert (states[-1]["value"], states[-1]["max"], states[-1]["state"]) == (24, 24, "finished")
    found = [match.groups() for match in map(LINE.fullmatch, made.texts[SAMPLER]) if match]
    assert ("1", "2") in found
    assert ("2", "5") in found
    assert made.texts[SAMPLER][-1].startswith("shot 2/2 · block 6/6 · ")
    assert made.texts[SAMPLER][-1].endswith(" · 0:00 left")


def test_every_block_is_previewed_on_the_sampler(made: Run) -> None:
    """A picture of every block arrives under the sampler's id while the film is made, the first before a block ends."""
    assert set(made.previews) == {SAMPLER}
    done, shown, first = 0, set(), None
    for event in made.events:
        if event.type == "progress_state" and SAMPLER in event.data["nodes"]:
            done = event.data["nodes"][SAMPLER]["value"]
        elif event.type == "preview":
            first = done if first is None else first
            shown.add(done // 4)
    assert first is not None
    assert first < 4
    assert shown >= {1, 2, 3, 4, 5}
    assert made.previews[SAMPLER][0].image().size == (8, 8) or made.previews[SAMPLER][0].image().width >= 8


def test_a_second_queue_costs_nothing(comfy: Host, made: Run) -> None:
    """The same graph again runs no node at all."""
    again = comfy.run(film(seed=SEED), 30)
    assert again.ok
    assert again.executed == []
    assert not sampled(again)
    assert again.outputs[FILM] == made.outputs[FILM]


def test_another_codec_draws_the_same_film_again(comfy: Host, made: Run) -> None:
    """With another codec or quality only the decoder runs: the blocks are replayed, and the pictures are the same."""
    other = comfy.run(film(seed=SEED, codec="h265"), 60)
    assert other.ok, other.error
    assert other.executed == [FILM]
    assert not sampled(other)
    first, second = film_frames(comfy, made).float(), film_frames(comfy, other).float()
    assert first.shape == second.shape
    assert (first - second).abs().mean() < 2  # two lossy codecs of one picture
    prompt = film(seed=SEED)
    prompt[FILM]["inputs"]["filename_prefix"] = "video/again"
    replayed = comfy.run(prompt, 60)
    assert replayed.executed == [FILM]
    assert torch.equal(film_frames(comfy, replayed), film_frames(comfy, made))


@pytest.mark.parametrize(("decode", "ending"), [("sequential", "\n"), ("off", "\n\n")])
def test_every_way_to_decode_gives_the_same_film(comfy: Host, made: Run, decode: str, ending: str) -> None:
    """Sampled anew with the models in turn, the film is the same to the bit."""
    prompt = film(SCRIPT + ending, SEED)  # the same film to the model, another one to the cache
    prompt[FILM]["inputs"]["decode"] = decode
    run = comfy.run(prompt, 90)
    assert run.ok, run.error
    assert sampled(run)
    assert torch.equal(film_frames(comfy, run), film_frames(comfy, made))


def test_another_shot_is_sampled(comfy: Host, made: Run) -> None:
    """A changed line of the script makes a film anew; the model is not loaded again."""
    assert made.ok
    changed = comfy.run(film(SCRIPT.replace("navy", "wine"), SEED), 60)
    assert changed.ok, changed.error
    assert sampled(changed)
    assert MINI not in changed.executed
    frames = film_frames(comfy, changed)
    assert read_frame(frames[-20].numpy()).background == "wine"


def test_two_films_in_the_queue_both_finish(comfy: Host) -> None:
    """A film queued behind another one is made after it; each has a file of its own."""
    behind: list[str] = []

    def queue_another(run: Run, _: object) -> None:
        if not behind and run.executed:
            behind.append(comfy.queue(film(SHORT, 32)))

    first = comfy.run(film(SHORT, 31), 60, on_event=queue_another)
    second = comfy.run(film(SHORT, 32), 60)  # waits for the one before, which is the same
    assert first.ok
    assert second.ok
    history = comfy.get(f"/history/{behind[0]}")[behind[0]]
    assert history["status"]["status_str"] == "success"
    (saved,) = history["outputs"][FILM]["video"]
    assert comfy.file(saved) != film_path(comfy, first)
    assert comfy.file(saved).is_file()


def saved_images(comfy: Host, run: Run, id: str) -> Tensor:
    """What SaveImage wrote, `[T, H, W, 3]` uint8."""
    return torch.stack(
        [
            torch.frombuffer(bytearray(Image.open(comfy.file(image)).convert("RGB").tobytes()), dtype=torch.uint8).view(
                128, 128, 3
            )
            for image in run.outputs[id]["images"]
        ]
    )


def test_latents_and_images_are_the_film(comfy: Host) -> None:
    """Stream to Latent through core's VAE Decode, Stream to Images and a frame range show the same pictures."""
    prompt = stream(TWO, 41)
    source = [SAMPLER, 0]
    images = {"stream": source, "vae": [MINI, 2]}
    prompt |= {
        "7": node("LongLiveStreamToLatent", stream=source),
        "8": node("VAEDecode", samples=["7", 0], vae=[MINI, 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="core"),
        "10": node("LongLiveStreamToImages", **images, first_frame=0, frame_count=0),
        "11": node("SaveImage", images=["10", 0], filename_prefix="own"),
        "12": node("LongLiveStreamToImages", **images, first_frame=-1, frame_count=0),
        "13": node("SaveImage", images=["12", 0], filename_prefix="last"),
        "14": node("LongLiveStreamToImages", **images, first_frame=5, frame_count=3),
        "15": node("SaveImage", images=["14", 0], filename_prefix="part"),
    }
    run = comfy.run(prompt, 90)
    assert run.ok, run.error
    core, own, last, part = (saved_images(comfy, run, id).int() for id in ("9", "11", "13", "15"))
    assert core.shape == own.shape == (plan_of(TWO).video_frames, 128, 128, 3)
    assert (core - own).abs().max() <= 1
    assert torch.equal(last, own[-1:])
    assert torch.equal(part, own[5:8])


def test_a_film_goes_on_from_another(comfy: Host) -> None:
    """STATE into a second sampler gives a film whose first frames are the first film's very frames."""
    prompt = stream(SHORT, 51)
    prompt |= {
        "22": node("LongLiveShotScript", script=TWO, default_seconds=4.0, fps=24.0),
        "23": node("LongLiveEncodeShots", clip=[MINI, 1], shots=["22", 0], negative=""),
    }
    inputs = {**prompt[SAMPLER]["inputs"], "conditioning": ["23", 0], "state": [SAMPLER, 1], "seed": 52}
    prompt |= {"25": node("LongLiveStreamingSampler", **inputs)}
    prompt |= kept_latent([SAMPLER, 0], "7", "8") | kept_latent(["25", 0], "27", "28")
    run = comfy.run(prompt, 90)
    assert run.ok, run.error
    first, both = latents(comfy, run), latents(comfy, run, "28")
    assert both.shape[2] == 3 * first.shape[2] == 24
    assert torch.equal(both[:, :, :8], first)
    assert not torch.equal(both[:, :, 8:16], first)


def test_a_longer_film_begins_with_the_shorter_one(comfy: Host) -> None:
    """The same seed with one more shot gives the same film, and the shot behind it."""
    short, long = (comfy.run(latent(script, 61), 60) for script in (SHORT, TWO))
    assert short.ok
    assert long.ok
    a, b = latents(comfy, short), latents(comfy, long)
    assert b.shape[2] == 2 * a.shape[2]
    assert torch.equal(b[:, :, : a.shape[2]], a)


def test_sound_is_in_the_file(comfy: Host) -> None:
    """AUDIO longer than the film is cut to its length; the film's own player finds one track of it."""
    prompt = stream(SHORT, 71)
    prompt["9"] = node("EmptyAudio", duration=5.0, sample_rate=44100, channels=2)
    prompt[FILM] = decoded([SAMPLER, 0], audio=["9", 0])
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    seconds = plan_of(SHORT).seconds
    with av.open(str(film_path(comfy, run))) as file:
        (sound,) = file.streams.audio
        heard = sum(frame.samples for frame in file.decode(sound)) / sound.rate
    assert heard == pytest.approx(seconds, abs=0.1)
    assert len(film_frames(comfy, run)) == plan_of(SHORT).video_frames


def test_surround_sound_is_mixed_down(comfy: Host) -> None:
    """AUDIO of six channels becomes a stereo track, and the node says so."""
    path = comfy.base / "input" / "surround.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(6)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(bytes(6 * 2 * 48_000 * 2))
    prompt = stream(SHORT, 72)
    prompt["9"] = node("LoadAudio", audio=path.name)
    prompt[FILM] = decoded([SAMPLER, 0], audio=["9", 0])
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    assert "6 channels: they are mixed down to stereo" in run.outputs[FILM]["text"][0]
    with av.open(str(film_path(comfy, run))) as film_file:
        assert film_file.streams.audio[0].channels == 2


def test_a_film_begins_with_a_picture(comfy: Host, tmp_path: Path) -> None:
    """A start image from Load Image is the film's first frame, whatever its size."""
    path = tmp_path / "start.png"
    picture = Image.new("RGB", (200, 160), (86, 20, 42))
    picture.paste((220, 40, 40), (70, 50, 130, 110))
    picture.save(path)
    prompt = film(SHORT, 81, start_image=["9", 0], vae=[MINI, 2])
    prompt["9"] = node("LoadImage", image=comfy.upload_image(path))
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    frames = film_frames(comfy, run)
    assert len(frames) == plan_of(SHORT).video_frames
    fitted = picture.crop((20, 0, 180, 160)).resize((128, 128), Image.Resampling.BILINEAR)
    wanted = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8).view(128, 128, 3)
    assert (frames[0].float() - wanted.float()).abs().mean() < 12


def test_a_film_is_made_without_the_web_folder(start: Start, tmp_path: Path) -> None:
    """With the pack's JavaScript and help removed, the nodes load; storyboard and film are made over the API."""
    pack = tmp_path / "longlive"
    shutil.copytree(ROOT, pack, ignore=shutil.ignore_patterns("web", "tests", ".*", "workflows", "output"))
    with start(pack=pack) as host:
        prompt = film(TWO, width=64, height=64)
        board = {"30": node("LongLiveStoryboard", stream=[SAMPLER, 0], vae=[MINI, 2])}
        run = host.run({**stream(TWO, width=64, height=64), **board})
        assert run.ok, run.error
        assert len(run.outputs["30"]["images"]) == 2
        run = host.run({**prompt, **board, FILM: decoded(["30", 0])})
        assert run.ok, run.error
        assert len(film_frames(host, run)) == 61
