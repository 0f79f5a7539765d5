"""A film is the same however it came about, and whatever ends it early leaves a file that plays."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.pipeline.stages import StageError
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.sampling.generate import NotFiniteError, generate
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.vae import VAEConfig
from longlive.longlive_core.video import read_video
from torch import Tensor

from ..full_disk import files_no_larger_than

SCRIPT = "Shot 1 (2 blocks): the hero\nShot 2 (1 block): the other\nShot 3 (2 blocks): the hero\n"
BLOCKS = 5
FRAMES = 29 + 4 * 32
MODEL = WanConfig(dim=48, ffn_dim=96, num_heads=2, num_layers=2, freq_dim=32, text_dim=32, text_len=16)
VAE = VAEConfig(dim=4, dec_dim=4, num_res_blocks=1, mean=(0.0,) * 48, std=(1.0,) * 48)


def make_mini() -> Mini:
    mini = Mini.random(0, ["the", "hero", "other"], MODEL, VAE)
    # An untrained head predicts no flow at all, and every film would be its noise.
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return mini


@pytest.fixture(scope="module")
def mini() -> Mini:
    return make_mini()


@pytest.fixture
def settings(tmp_path: Path) -> RenderSettings:
    (tmp_path / "script.txt").write_text(SCRIPT)
    return RenderSettings(tmp_path / "script.txt", tmp_path / "film.mp4", size="64x64", steps=2)


@pytest.fixture(scope="module")
def whole(mini: Mini, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """The film that nothing interrupted, as its file plays."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "script.txt").write_text(SCRIPT)
    assert Job(RenderSettings(folder / "script.txt", folder / "film.mp4", size="64x64", steps=2), mini=mini).run()
    return read_video(folder / "film.mp4")


def whole_fragment_frames(data: bytes) -> int:
    """Frames in the whole fragments of a file, counted in its boxes."""
    at, samples, frames = 0, 0, 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if at + size > len(data):
            break
        if kind == b"moof":
            trun = data.index(b"trun", at)
            samples = struct.unpack(">I", data[trun + 8 : trun + 12])[0]
        frames += samples if kind == b"mdat" else 0
        at += size
    return frames


def after(calls: int) -> Callable[[], bool]:
    """A question that is answered yes from the `calls`-th time on."""
    answers = iter([False] * calls)
    return lambda: next(answers, True)


@pytest.mark.slow
def test_the_file_holds_the_film_that_decoding_whole_gives(mini: Mini, whole: Tensor) -> None:
    """Streamed to the file == every latent decoded at once, up to what H.264 loses."""
    plan = ShotScript.parse(SCRIPT).plan()
    latents = torch.cat([b.latents for b in generate(mini.model, plan, mini.encode_text, size=(4, 4), steps=2)], dim=2)
    with torch.inference_mode():
        video = mini.vae.decode(mini.vae.denormalise(latents))
    pixels = video[0].clamp(-1, 1).add(1).mul(127.5).permute(1, 2, 3, 0)
    assert whole.shape == pixels.shape == (FRAMES, 64, 64, 3)
    # Chroma at half resolution blurs colour noise, so brightness is compared.
    weights = torch.tensor([0.2126, 0.7152, 0.0722])
    assert ((whole.float() - pixels) @ weights).abs().mean() < 4


def test_progress_tells_every_piece(mini: Mini, settings: RenderSettings) -> None:
    """Progress is reported for every latent frame, with its shot, its block and the video frames so far."""
    seen: list[tuple[int, int, int]] = []
    Job(settings, mini=mini, on_progress=lambda p: seen.append((p.block.shot, p.block.index, p.video_frames))).run()
    assert [frames for _, _, frames in seen] == [1 + 4 * i for i in range(8 * BLOCKS)]
    assert [block for _, block, _ in seen] == [i // 8 for i in range(8 * BLOCKS)]
    assert {(shot, block) for shot, block, _ in seen} == {(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 1, 7, 20, 41])
def test_a_stopped_film_is_the_beginning_of_the_whole(
    mini: Mini, settings: RenderSettings, whole: Tensor, calls: int
) -> None:
    """A stopped film is the beginning of the whole film to the bit, with a contact sheet once it has a frame."""
    job = Job(replace(settings, contact_sheet=True), mini=mini, should_stop=after(calls))
    assert not job.run()
    played = read_video(settings.output)
    assert len(played) == job.render.video_frames < FRAMES
    assert torch.equal(played, whole[: len(played)])
    assert job.sheet_path.exists() == (len(played) > 0)


class Breaking(CausalWan):
    """Gives one bad value from a given model call on."""

    bad_from, value, calls = 0, float("nan"), 0

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:  # type: ignore[override]
        self.calls += 1
        flow = super().forward(x, *rest)  # type: ignore[arg-type]
        if self.calls > self.bad_from:
            flow[0, 0, 0, 0, 0] = self.value
        return flow


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_stops_at_its_block_and_keeps_the_rest(
    mini: Mini, settings: RenderSettings, whole: Tensor, value: float
) -> None:
    """NaN or infinity from the model is an error with the block, and all blocks before it are in the file."""
    model = Breaking(MODEL).requires_grad_(False)
    model.load_state_dict(mini.model.state_dict())
    model.bad_from, model.value = 7, value  # 2 steps a block: the fourth block's second step
    job = Job(settings, mini=replace(mini, model=model))
    with pytest.raises(StageError, match=r"^sampling: block 3 \(shot 3.*NaN or infinite") as raised:
        job.run()
    assert isinstance(raised.value.__cause__, NotFiniteError)
    played = read_video(settings.output)
    assert len(played) == job.render.video_frames == 29 + 2 * 32
    assert torch.equal(played, whole[: len(played)])


@pytest.mark.linux
def test_a_full_disk_in_mid_film_leaves_what_was_written(mini: Mini, settings: RenderSettings, whole: Tensor) -> None:
    """A full disk is an error with the stage, and the file plays the beginning of the whole film."""
    job = Job(settings, mini=mini)
    with files_no_larger_than(100_000), pytest.raises(StageError, match=r"^writing: .*stopped growing") as raised:
        job.run()
    assert isinstance(raised.value.__cause__, OSError)
    played = read_video(settings.output)
    assert 0 < len(played) < FRAMES
    assert torch.equal(played, whole[: len(played)])


KILLED = """
    import os, signal, sys, time, types
    from pathlib import Path

    root, folder, moments = sys.argv[1], Path(sys.argv[2]), [float(word) for word in sys.argv[3:]]
    package = types.ModuleType("longlive")
    package.__path__ = [root]
    sys.modules["longlive"] = package
    import torch
    from longlive.longlive_core.render.job import Job, RenderSettings
    from longlive.longlive_core.mini import load_mini

    torch.set_num_threads(1)
    mini = load_mini(folder / "mini")

    def render(name):
        Job(RenderSettings(folder / "script.txt", folder / name, size="32x32", steps=1, take=False), mini=mini).run()

    def size(name):
        return (folder / name).stat().st_size if (folder / name).exists() else 0

    # By how far the file is, not by a clock: the machine may be busy.
    render("whole.mp4")
    for i, moment in enumerate(moments):
        child = os.fork()
        if child == 0:
            render(f"{i}.mp4")
            os._exit(0)
        while size(f"{i}.mp4") < moment * size("whole.mp4"):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_killed_at_random_moments_every_film_plays_to_its_last_whole_fragment(tmp_path: Path, root: Path) -> None:
    """20 renders end by SIGKILL, spread over the length of a whole one. A file killed before its header is absent or
    empty; from the header on it opens, and plays every frame of its whole fragments exactly as the whole film."""
    make_mini().save(tmp_path / "mini", torch.float32)
    (tmp_path / "script.txt").write_text(SCRIPT)
    rng = random.Random(7)
    moments = [str((i + rng.random()) / 20) for i in range(20)]
    program = tmp_path / "killed.py"
    program.write_text(textwrap.dedent(KILLED))
    subprocess.run([sys.executable, str(program), str(root), str(tmp_path), *moments], check=True, timeout=600)
    film = read_video(tmp_path / "whole.mp4")
    assert len(film) == FRAMES
    played: list[int] = []
    for i in range(20):
        path = tmp_path / f"{i}.mp4"
        if not path.exists() or path.stat().st_size == 0:
            played.append(0)
            continue
        frames = read_video(path)
        expected = whole_fragment_frames(path.read_bytes())
        assert len(frames) >= expected, (moments, i)
        assert torch.equal(frames[:expected], film[:expected]), (moments, i)
        played.append(expected)
    assert sum(0 < frames < FRAMES for frames in played) >= 10, f"too few died in mid-film: {played}"
