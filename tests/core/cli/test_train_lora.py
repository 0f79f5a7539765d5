"""`longlive train lora`: clips are encoded once, a LoRA is written that every loader reads, and bad input is named."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.cli import train_lora
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import ASSETS, load_mini
from longlive.longlive_core.training import clip_cache, lora_memory
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.lora import read_card
from longlive.longlive_core.types import LatentShape
from longlive.longlive_core.vae.encode_clip import encode_clip
from longlive.longlive_core.video import VideoWriter, read_video
from longlive.longlive_core.weights import open_source, read_lora
from safetensors.torch import load_file, save_file

from ..training.toy_mini import save_tiny
from ..video.films import moving

Train = Callable[..., tuple[int, str, str]]


def write_clip(path: Path, frames: int, caption: str, fps: int = 24, side: int = 64) -> None:
    """Writes a video of noise with a moving square, and its caption."""
    with VideoWriter(path, width=side, height=side, fps=fps) as writer:
        writer.write(moving(frames, seed=frames)[:, :side, :side])
    path.with_suffix(".txt").write_text(caption, "utf-8")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a model like the embedded one, of a few thousand weights."""
    return save_tiny(tmp_path / "tiny")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of two videos; one of them is a film of two shots."""
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "a.mp4", 64, "a red fox waits")
    write_clip(folder / "b.mp4", 66, "Shot 1 (1.4s): a box\nShot 2: it sways")
    return folder


@pytest.fixture
def train(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Runs `longlive train lora DATA` on the tiny base for two steps; returns exit code, output and errors."""

    def run(data: Path, *words: object, out: str = "out") -> tuple[int, str, str]:
        common = ("--base", base, "--rank", 2, "--steps", 2, "--size", "32x32", "--out", tmp_path / out)
        # The last of two equal options counts.
        code = main(["train", "lora", *map(str, (data, *common, *words))])
        return code, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_a_lora_is_trained_on_the_good_videos(train: Train, clips: Path, tmp_path: Path, base: Path) -> None:
    """A broken video in the middle and one shorter than a block are skipped by name and counted; the LoRA has a card,
    the official names and those of core, changes all layers, and can be trained further with its rank only."""
    (clips / "a_broken.mp4").write_bytes((clips / "a.mp4").read_bytes()[:300])
    (clips / "a_broken.txt").write_text("a fox")
    write_clip(clips / "short.mp4", 20, "a short one")
    code, out, err = train(clips)
    assert (code, err) == (0, "")
    assert re.search(r"note: skipped: \S*a_broken\.mp4 cannot be read as a video", out)
    assert re.search(r"note: skipped: \S*short\.mp4 has 20 frames at 24 fps, and no shot of a block \(29\)", out)
    assert "note: 2 of 4 videos: 2 clips, 5.1 s, at 32x32; 8 frames that make no whole block are left out" in out
    path = tmp_path / "out" / "lora.safetensors"
    card = read_card(open_source(path).metadata)
    assert (card.base, card.data, card.steps, card.sampler_steps, card.rope_offset) == ("tiny", "clips", 2, 0, 8.0)
    official, core = load_file(path), load_file(path.with_name("lora_comfyui.safetensors"))
    assert {name.replace("base_model.model.", "diffusion_model.") for name in official} == core.keys()
    assert all(value.any() for name, value in official.items() if ".lora_B." in name)
    report = read_lora(path).add_bypass(load_mini(base).model)
    assert (len(report.applied), report.missing, report.unused, report.ranks) == (10, (), (), (2,))
    assert train(clips, "--lora", path, out="further")[0] == 0
    code, _, err = train(clips, "--lora", path, "--rank", 3, out="other")
    assert code == 2 and "has rank 2 and alpha 2, but this run trains rank 3 and alpha 3" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_clips_are_encoded_once(train: Train, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run with the cache encodes nothing, whatever its captions; a video that changed or a damaged file of the
    cache is encoded again, and a renamed video under its new name."""
    cache = tmp_path / "cache"
    assert "encoded 2 clips of 2: b.mp4" in train(clips, "--cache", cache)[1]
    (clips / "a.txt").write_text("another caption")
    assert "encoded 1" not in train(clips, "--cache", cache, out="again")[1]
    damaged = next(cache.glob("a-*"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    write_clip(clips / "b.mp4", 70, "a box")
    out = train(clips, "--cache", cache, out="changed")[1]
    assert "encoded 1 clip of 2: a.mp4" in out and "encoded 2 clips of 2: b.mp4" in out
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(clip_cache, "_save", None)  # would be called for a clip to encode
    assert train(clips, "--cache", cache, out="last")[0] == 0


@pytest.mark.slow
def test_latents_are_those_of_the_frames_at_24_fps(train: Train, tmp_path: Path, base: Path) -> None:
    """A clip of 48 fps is read by time; its latents are the VAE's of every second frame from the first one on."""
    folder = tmp_path / "fast"
    folder.mkdir()
    write_clip(folder / "a.mp4", 80, "a fox", fps=48)
    code, out, _ = train(folder, "--cache", tmp_path / "cache")
    assert code == 0 and "note: a.mp4: the video has 48 frames per second: read at 24 frames per second by time" in out
    (file,) = (tmp_path / "cache").iterdir()
    latents, vae, frames = load_file(file)["latents"].float(), load_mini(base).vae, read_video(folder / "a.mp4")

    def distance(start: int, step: int) -> float:
        given = frames[start::step][:29]
        return float((encode_clip(given, vae, LatentShape(1, 48, 8, 2, 2), lambda: None)[0] - latents).norm())

    assert latents.shape == (48, 8, 2, 2)
    assert distance(0, 2) < 0.02 * float(latents.norm())
    assert min(distance(1, 2), distance(2, 2), distance(0, 1)) > 5 * distance(0, 2)


@pytest.mark.slow
def test_a_run_is_resumed_with_its_own_data(train: Train, clips: Path) -> None:
    """Another caption is other data, and refused with both names; more steps go on."""
    assert train(clips)[0] == 0
    code, out, _ = train(clips, "--steps", 3)
    assert code == 0 and "resumed after step 2" in out
    (clips / "a.txt").write_text("another caption")
    code, _, err = train(clips)
    assert code == 2 and re.search(r"are of data 'clips \(\w{16}\)', not 'clips \(\w{16}\)': choose", err)


@pytest.mark.slow
def test_a_prior_is_data_of_its_own(train: Train, clips: Path, tmp_path: Path) -> None:
    """`--prior` takes the forms of DATA, is noted and logged beside it, and is needed to resume the run."""
    write_clip(tmp_path / "film.mp4", 64, "a film of the base")
    code, out, _ = train(clips, "--prior", tmp_path / "film.mp4", "--prior-weight", 2)
    assert code == 0 and "note: 1 of 1 video: 1 clip" in out
    lines = TrainingLog(tmp_path / "out").lines()
    assert ["model.loss" in line for line in lines] == [True, False] and lines[1]["model.prior.loss"] >= 0
    (tmp_path / "film.txt").write_text("another caption")
    code, _, err = train(clips, "--prior", tmp_path / "film.mp4")
    assert code == 2 and re.search(r"are of prior 'film\.mp4 \(\w{16}\)', not 'film\.mp4 \(\w{16}\)': choose", err)
    code, _, err = train(clips, "--prior", tmp_path / "none")
    assert code == 2 and f"{tmp_path / 'none'} does not exist" in err


@pytest.mark.slow
@pytest.mark.usefixtures("clips")
def test_settings_come_from_a_file_and_arguments_replace_them(train: Train, tmp_path: Path) -> None:
    """`DATA` may be a TOML file, whose `data` names the clips; JSONL data of another trainer is read in it."""
    data = tmp_path / "metadata.jsonl"
    data.write_text(json.dumps({"video_path": "clips/a.mp4", "caption": "A caption for a"}), "utf-8")
    config = tmp_path / "lora.toml"
    config.write_text(f'data = "{data}"\nblocks = 1\nrank = 7\n[trainer]\nsteps = 9\n[optimiser]\nlr = 1e-3\n')
    code, out, err = train(config)
    assert (code, err) == (0, "") and "1 of 1 video: 2 clips" in out and "2 steps done" in out
    lora = read_lora(tmp_path / "out" / "lora.safetensors")
    assert {layer.rank for layer in lora.layers.values()} == {2}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rank", 0), "'rank' = 0 must be at least 1"),
        (("--blocks", 0), "'blocks' = 0 must be at least 1"),
        (("--lr", 0), "'lr' = 0 must be above 0"),
        (("--size", "512"), "size '512' is not HEIGHTxWIDTH"),
        (("--size", "16x64"), "'size' = 16 must be at least 32"),
        (("--base", "none"), "none"),
        (("--lora", "none.safetensors"), "none.safetensors does not exist"),
        (("--device", "gpu"), "'gpu' is no device"),
    ],
)
def test_bad_settings_are_refused(
    train: Train, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], message: str
) -> None:
    """One line, exit code 2, no step."""
    monkeypatch.chdir(tmp_path)
    code, _, err = train(clips, *words)
    assert code == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_bad_data_is_refused_before_a_folder_is_made(train: Train, tmp_path: Path) -> None:
    """No video is left, or a script is longer than its video."""
    folder = tmp_path / "bad"
    folder.mkdir()
    write_clip(folder / "a.mp4", 20, "a fox")
    code, _, err = train(folder)
    assert code == 2 and "no video can be trained on; skipped: " in err and "a.mp4 has 20 frames" in err
    write_clip(folder / "b.mp4", 64, "Shot 1 (2s): a fox\nShot 2 (2s): it waits")
    code, _, err = train(folder)
    assert code == 2 and "b.mp4: its script goes on to 4.00 s, but the video ends at 2.67 s" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_base_that_is_not_causal_is_refused(train: Train, clips: Path, tmp_path: Path) -> None:
    """Metadata that say so end the command; a checkpoint that does not say is noted."""
    tensors = load_file(ASSETS / "transformer.safetensors")
    checkpoint = tmp_path / "model.safetensors"
    save_file(tensors, checkpoint, {"longlive": json.dumps({"causal": False, "num_heads": 6})})
    code, _, err = train(clips, "--base", checkpoint)
    assert code == 2 and "is the ordinary (bidirectional) Wan2.2" in err
    save_file(tensors, checkpoint, {"longlive": json.dumps({"num_heads": 6})})
    assert (
        "model.safetensors does not say whether it is LongLive" in train(clips, "--base", checkpoint, "--steps", 1)[1]
    )


@pytest.mark.slow
def test_a_loss_that_is_nan_names_the_clip(train: Train, clips: Path, tmp_path: Path) -> None:
    """The run stops; the checkpoint before it is kept."""
    assert train(clips, "--cache", tmp_path / "cache")[0] == 0
    for file in (tmp_path / "cache").glob("a-*"):
        save_file({"latents": torch.full((48, 16, 2, 2), torch.nan).half()}, file)
    code, _, err = train(clips, "--cache", tmp_path / "cache", "--steps", 40)
    assert code == 2 and re.search(r"the loss is nan in 'model' on a\.mp4; the checkpoint of step 2 is kept", err)


def test_a_full_disk_while_clips_are_encoded(
    train: Train, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says where and how much; no half clip is left, and the clips before it are kept."""
    save = clip_cache.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        if metadata["video"] == "b.mp4":
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(clip_cache, "save_file", full)
    code, _, err = train(clips)
    assert code == 2 and re.search(r"cannot write \S*b-\w+\.safetensors \(\S+ \wB\): No space left on device", err)
    assert [path.name[:2] for path in (tmp_path / "out" / "cache").iterdir()] == ["a-"]


@pytest.mark.slow
def test_too_little_memory_is_said_before_work(
    train: Train, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the need, what there is, and the changes that are enough; nothing is encoded."""
    monkeypatch.setattr(lora_memory, "device_memory", lambda _: 300_000)
    code, _, err = train(clips)
    assert code == 2 and re.search(
        r"needs about \S+ MB at its peak, but 'cpu' has 0\.3 MB free; enough is: clips of", err
    )
    monkeypatch.setattr(lora_memory, "device_memory", lambda _: 1000)
    assert "nothing is enough" in train(clips)[2]
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(lora_memory, "device_memory", lambda _: None)
    assert train(clips)[0] == 0


@pytest.mark.slow
def test_a_stop_while_clips_are_encoded(
    train: Train, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clips that are done are kept, and the same command goes on."""
    encode, ends = train_lora._encode, list[bool]()

    def stopped(*args: object) -> object:
        *most, _, led = args
        return encode(*most, lambda: any((tmp_path / "out").rglob("a-*.safetensors")), led)  # type: ignore[arg-type]

    monkeypatch.setattr(train_lora, "_encode", stopped)
    code, out, _ = train(clips)
    assert code == 130 and "stopped; the same command goes on" in out and not ends
    monkeypatch.setattr(train_lora, "_encode", encode)
    code, out, _ = train(clips)
    assert code == 0 and "a.mp4" not in out.partition("encoded")[2].partition("\n")[0]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["fp8", "nvfp4"])
def test_a_quantised_base(train: Train, clips: Path, tmp_path: Path, weights: str) -> None:
    """A LoRA is trained beside the frozen layers of a quantised checkpoint, which stay as they are."""
    bf16, quantised = tmp_path / "bf16.safetensors", tmp_path / f"{weights}.safetensors"
    save_file(
        load_file(ASSETS / "transformer.safetensors"), bf16, {"longlive": json.dumps({"causal": True, "num_heads": 6})}
    )
    assert main(["convert", str(bf16), str(quantised), "--format", weights]) == 0
    before = quantised.read_bytes()
    code, _, err = train(clips, "--base", quantised)
    assert (code, err) == (0, "") and quantised.read_bytes() == before
    lora = load_file(tmp_path / "out" / "lora.safetensors")
    assert len(lora) == 120 and all(bool(np.isfinite(value.numpy()).all()) for value in lora.values())
    assert all(value.any() for name, value in lora.items() if ".lora_B." in name)
