"""LongLive Train LoRA in the real server, whose Python needs peft: a run, its cancel, its end, and what it made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.training.checkpoint import Checkpoints
from longlive.longlive_core.training.lora import read_card
from longlive.longlive_core.video import VideoWriter, read_video
from longlive.longlive_core.weights import convert_checkpoint, open_source, read_lora

from .graphs import SHORT, Prompt, in_host, latent, latents, node, save_lora, save_model, say_mini
from .host import ROOT, Host, Refused, Start
from .run import Event, Run
from .test_errors import TINY

pytestmark = pytest.mark.comfy

MINI, TRAIN = "1", "20"
SMALL = {"model": [MINI, 0], "lora_name": "small.safetensors", "strength": 1.0}
CAPTIONS = {
    "a": "a big red ring sways on the left in front of a plain navy wall",
    "b": "Shot 1 (29f): a big green ball rests on the right against a plain wine wall\nShot 2: the hero bobs",
}


def write_clip(path: Path, frames: int, seed: int) -> None:
    """A video of 64x64 pixels: a box that moves over noise."""
    rng = np.random.default_rng(seed)
    video = np.tile(rng.integers(0, 90, (1, 64, 64, 3), dtype=np.uint8), (frames, 1, 1, 1))
    for number in range(frames):
        left = number % 40
        video[number, 20:44, left : left + 24] = (200, 40, 40)
    with VideoWriter(path, width=64, height=64, fps=24) as writer:
        writer.write(torch.from_numpy(video))


@pytest.fixture(scope="module")
def host(start: Start) -> Iterator[Host]:
    """A server of its own with two clips in input/clips."""
    with start() as own:
        folder = own.base / "input" / "clips"
        folder.mkdir()
        for seed, (name, caption) in enumerate(CAPTIONS.items()):
            write_clip(folder / f"{name}.mp4", 62, seed)
            (folder / f"{name}.txt").write_text(caption, "utf-8")
        yield own


def train(**inputs: object) -> Prompt:
    """LongLive Mini trained on input/clips: by default four steps at 64x64."""
    small = {"rank": 4, "steps": 4, "learning_rate": 0.01, "sample_every": 0, "sample_script": SHORT, "seed": 1}
    links = {"model": [MINI, 0], "clip": [MINI, 1], "vae": [MINI, 2], "data": "clips", "output_name": "taught"}
    return {
        MINI: node("LongLiveMini"),
        TRAIN: node("LongLiveTrainLora", **{**links, **small, "resolution": 64, "blocks": 2, **inputs}),
    }


def logged(host: Host, run: str) -> list[dict[str, float]]:
    """The log of a run in the output folder."""
    return [json.loads(line) for line in (host.base / "output/training" / run / "log.jsonl").read_text().splitlines()]


def test_a_lora_is_trained_and_changes_a_film(host: Host) -> None:
    """The run shows progress, loss and a curve, makes sample films and a LoRA file; both outputs are the same LoRA."""
    prompt = {**latent(SHORT, 5, model=[TRAIN, 0], width=64, height=64), **train(sample_every=2)}
    run = host.run(prompt, 200)
    assert run.ok, run.error
    assert [line["step"] for line in logged(host, "taught_00001")] == [1, 2, 3, 4]
    assert any(
        re.fullmatch(r"step 3/4 · loss [\d.]+ · [\d.]+ s a step · 0:0\d left", text.splitlines()[0])
        for text in run.texts[TRAIN]
    )
    assert run.progress[TRAIN][-1]["value"] == run.progress[TRAIN][-1]["max"] == 4
    (curve,), (film,) = run.outputs[TRAIN]["images"], run.outputs[TRAIN]["video"]
    assert not run.previews[TRAIN]  # Nodes 2.0 would leave it beside the curve
    assert host.file(curve).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in sorted(host.file(film).parent.iterdir())] == ["step_000002.mp4", "step_000004.mp4"]
    told = [event.data for event in run.events if event.type == "longlive.film"]
    assert [film["name"] for film in told if film["node"] == TRAIN] == ["step_000002.mp4", "step_000004.mp4"]
    assert read_video(host.file(film)).shape == (29, 64, 64, 3)
    path = host.base / "models/loras/taught_00001.safetensors"
    card = read_card(open_source(path).metadata)
    assert (card.base, card.data, card.steps) == ("LongLive Mini", "clips", 4)
    assert {layer.rank for layer in read_lora(path).layers.values()} == {4}
    trained = latents(host, run)
    named = latent(SHORT, 5, model=["9", 0], width=64, height=64) | train(sample_every=2)
    named["9"] = node("LongLiveDMDLora", model=[MINI, 0], lora_name=[TRAIN, 1], strength=1.0, mode="auto")
    wired = host.run(named, 60)
    assert wired.ok, wired.error
    assert TRAIN not in wired.executed, "a finished run is not made again"
    assert torch.equal(latents(host, wired), trained)
    plain = host.run(latent(SHORT, 5, width=64, height=64), 60)
    assert float((latents(host, plain) - trained).norm() / trained.norm()) > 0.01


def test_a_cancelled_run_goes_on(host: Host) -> None:
    """Cancelled in the middle of a step, a run keeps a checkpoint and the LoRA of its last step; queued again it ends
    with the weights of a run that was never cancelled. Other settings begin a new run, and say so."""
    cancelled: list[int] = []

    def cancel(run: Run, _: Event) -> None:
        steps = [state["value"] for state in run.progress[TRAIN] if state["max"] == 6]
        if not cancelled and 2 in steps:
            cancelled.append(len(steps))
            host.interrupt(run.prompt_id)

    settings = {"output_name": "stopped", "steps": 6, "seed": 2}
    run = host.run(train(**settings), 200, on_event=cancel)
    assert run.interrupted, run.error
    folder, path = host.base / "output/training/stopped_00001", host.base / "models/loras/stopped_00001.safetensors"
    done = len(logged(host, "stopped_00001"))
    assert 2 <= done < 6
    assert Checkpoints(folder / "checkpoints").places() == [(done, 0)]
    assert read_card(open_source(path).metadata).steps == done
    again = host.run(train(**settings), 200)
    assert again.ok, again.error
    assert f"stopped_00001 goes on after step {done}" in again.outputs[TRAIN]["text"][0]
    assert [line["step"] for line in logged(host, "stopped_00001")] == [1, 2, 3, 4, 5, 6]
    other = host.run(train(**{**settings, "seed": 3}), 200)
    assert other.ok, other.error
    assert "changed: seed; stopped_00002 begins at step 0" in other.outputs[TRAIN]["text"][0]
    whole = host.run(train(**{**settings, "output_name": "whole"}), 200)
    assert whole.ok, whole.error
    one, two = (read_lora(path.with_name(f"{name}_00001.safetensors")).layers for name in ("stopped", "whole"))
    assert all(torch.equal(one[name].up, two[name].up) for name in two)


@pytest.mark.parametrize("form", ["nvfp4", "fp8"])
def test_a_quantised_model_is_trained_beside(host: Host, form: str) -> None:
    """A quantised file stays quantised; its LoRA is trained, and then runs, beside its layers; sample films play."""
    source = save_model(host, "mini.safetensors", dict(load_mini().model.state_dict()), say_mini())
    folder = host.base / "models/diffusion_models"
    convert_checkpoint(folder / source, folder / f"{form}.safetensors", format=form)
    settings = {"output_name": form, "steps": 2, "sample_every": 2, "model": ["9", 0]}
    prompt = {**latent(SHORT, 5, model=[TRAIN, 0], width=64, height=64), **train(**settings)}
    prompt["9"] = node("LongLiveModelLoader", model_name=f"{form}.safetensors", precision="auto")
    run = host.run(prompt, 200)
    assert run.ok, run.error
    assert "bypass: 60 of 60 layers; rank 4" in run.outputs[TRAIN]["text"][0]
    (film,) = run.outputs[TRAIN]["video"]
    assert read_video(host.file(film)).shape == (29, 64, 64, 3)
    path = host.base / f"models/loras/{form}_00001.safetensors"
    assert read_card(open_source(path).metadata).base == f"{form}.safetensors"
    assert all(layer.up.any() for layer in read_lora(path).layers.values())


def test_a_broken_video_is_skipped_by_name(host: Host) -> None:
    """A broken video among good ones is left out, and the node says which."""
    folder = host.base / "input" / "mixed"
    folder.mkdir()
    write_clip(folder / "good.mp4", 40, 5)
    (folder / "torn.mp4").write_bytes((folder / "good.mp4").read_bytes()[:400])
    for name in ("good", "torn"):
        (folder / f"{name}.txt").write_text("a big red ring", "utf-8")
    run = host.run(train(data="mixed", output_name="mixed", steps=1), 100)
    assert run.ok, run.error
    assert re.search(r"skipped: \S*torn\.mp4 cannot be read as a video", run.outputs[TRAIN]["text"][0])
    assert "1 of 2 videos: 1 clip" in run.outputs[TRAIN]["text"][0]


@pytest.fixture(scope="module")
def bad(host: Host) -> Host:
    """The server with data sets that are wrong in one way each, and a model that is not causal."""
    root = host.base / "input"
    for name in ("empty", "silent", "wordless"):
        (root / name).mkdir()
    write_clip(root / "silent" / "fox.mp4", 40, 6)
    write_clip(root / "wordless" / "fox.mp4", 40, 6)
    (root / "wordless" / "fox.txt").write_text(" ... ", "utf-8")
    write_clip(host.base / "fox.mp4", 40, 6)
    (root / "outside.jsonl").write_text(json.dumps({"video_path": "../fox.mp4", "caption": "a fox"}), "utf-8")
    torch.manual_seed(1)
    wan = CausalWan(TINY)
    wan.init_weights()
    save_model(host, "tiny_wan.safetensors", {name: value.half() for name, value in wan.state_dict().items()})
    return host


@pytest.mark.parametrize(
    ("inputs", "parts"),
    [
        ({"data": "nowhere"}, ["nowhere", "does not exist", "give a folder of videos"]),
        ({"data": "empty"}, ["empty has no videos", "give a folder of videos"]),
        ({"data": "silent"}, ["no caption for fox.mp4", "fox.txt"]),
        ({"data": "wordless"}, ["fox.txt has no words"]),
        ({"data": "../output"}, ["'../output'", "not in the input folder"]),
        ({"data": "/etc"}, ["'/etc'", "not in the input folder"]),
        ({"data": "outside.jsonl"}, ["fox.mp4 is outside the input folder"]),
        ({"rank": 0}, ["0", "1"]),
        ({"steps": 0}, ["0", "1"]),
        ({"output_name": "../lora"}, ["'../lora'", "name without folders"]),
        ({"output_name": " "}, ["' '", "name without folders"]),
        ({"sample_script": "Shot 1 (4 bananas): x"}, ["line 1", "bananas"]),
    ],
)
def test_bad_input_is_refused_when_it_is_queued(bad: Host, inputs: dict[str, object], parts: list[str]) -> None:
    """What can be known from widgets and files is refused before anything runs, at the node, with the remedy."""
    with pytest.raises(Refused) as refused:
        bad.queue(train(**inputs))
    message = "\n".join(line for line in refused.value.messages if line.startswith(TRAIN + " "))
    assert [part for part in parts if part not in message] == [], message


def through(kind: str, **inputs: object) -> Prompt:
    """Training of a MODEL that another node gives."""
    return {**train(model=["9", 0], output_name="refused"), "9": node(kind, **inputs)}


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        (
            lambda: through("UNETLoader", unet_name="tiny_wan.safetensors", weight_dtype="default"),
            ["ordinary (bidirectional) Wan 2.2", "LongLive-2.0-5B"],
        ),
        (
            lambda: through(
                "LongLiveDMDLora", model=[MINI, 0], lora_name="small.safetensors", strength=1.0, mode="auto"
            ),
            ["has a LoRA already", "connect the loader's MODEL"],
        ),
        (
            lambda: through(
                "LongLiveDMDLora", model=[MINI, 0], lora_name="small.safetensors", strength=1.0, mode="bypass"
            ),
            ["has a LoRA already"],
        ),
        (lambda: train(resolution=256), ["resolution 256", "128"]),
        (
            lambda: through("LongLiveModelLoader", model_name="tiny_wan.safetensors", precision="fp32"),
            ["VAE", "wan2.2_vae.safetensors"],
        ),
    ],
    ids=["not causal", "a LoRA merged", "a LoRA beside", "too large", "another VAE"],
)
def test_bad_wires_end_before_work(bad: Host, prompt: Callable[[], Prompt], parts: list[str]) -> None:
    """What only the values on the wires show ends the run at the node, and no run or LoRA is begun."""
    save_lora(bad, "small.safetensors", {"blocks.0.self_attn.q": (192, 192)})
    run = bad.run(prompt(), 60)
    assert run.error is not None and run.error["node_id"] == TRAIN
    assert [part for part in parts if part not in run.error["exception_message"]] == [], run.error["exception_message"]
    assert not list((bad.base / "output").glob("training/refused*"))


WITHOUT_PEFT = """
import asyncio, importlib.util, server
sys.modules["peft"] = None
server.PromptServer(asyncio.new_event_loop())
root = sys.argv[1]
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["pack"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from pack.nodes.train_lora import TrainLora
try:
    TrainLora.validate_inputs()
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_peft_is_asked_for(comfy_path: Path) -> None:
    """Without peft, all nodes load, and this one says when it is queued what to install."""
    assert comfy_path
    assert "training a LoRA needs the package peft: pip install peft" in in_host(WITHOUT_PEFT, ROOT)
