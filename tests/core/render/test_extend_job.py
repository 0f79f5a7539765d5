"""A video from elsewhere becomes a film: its last whole blocks, at the film's size, none of them sampled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.mini import Mini, load_mini
from longlive.longlive_core.render.given_video import GivenVideo
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.script import Length, ScriptError, plan_shot
from longlive.longlive_core.take import Take, choose, retake
from longlive.longlive_core.types import LatentShape
from longlive.longlive_core.vae.encode_clip import encode_clip, plan_clip, resize_and_crop, whole_blocks
from longlive.longlive_core.video import VideoWriter, read_video
from longlive.longlive_core.video.clip import Clip, ClipStopped

from ..full_disk import files_no_larger_than
from ..takes import after, latents, resume, same

# Films are rendered by nearly every test here.
pytestmark = pytest.mark.slow

BEHIND = """\
thing: the hero
Shot 1 (1 block) continue: {thing}
Shot 2 (1 block): the other @seed=4
"""
FRAMES = 63
BLOCKS = 4


@pytest.mark.parametrize(("frames", "blocks", "surplus"), [(29, 1, 0), (30, 1, 1), (60, 1, 31), (61, 2, 0)])
def test_whole_blocks_remain(frames: int, blocks: int, surplus: int) -> None:
    """32k - 3 frames remain, as many as the clip holds."""
    assert whole_blocks(frames) == (blocks, surplus)
    assert frames == 32 * blocks - 3 + surplus


def test_a_clip_below_a_block_is_refused() -> None:
    """The error names the frames of the clip, the frames needed, and the remedy."""
    with pytest.raises(ValueError, match=r"28 frames.*29 frames at least.*start image"):
        whole_blocks(28)


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (50, 90), (200, 120), (64, 64)])
def test_a_clip_is_scaled_to_cover_and_cropped_to_its_centre(size: tuple[int, int]) -> None:
    """A clip of any size gets the film's size: a disc in its centre stays in the centre and round."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2).sqrt() < min(size) / 4
    frames = (disc * 255).to(torch.uint8)[None, :, :, None].expand(2, -1, -1, 3)
    out = resize_and_crop(frames, 64, 64)
    assert out.shape == (2, 3, 64, 64) and out.dtype == torch.float32
    scale = max(64 / height, 64 / width)
    assert float(out[0, 0].sum()) == pytest.approx(float(disc.sum()) * scale**2, rel=0.05)
    columns = out[0, 0].sum(0)
    assert float((columns * (torch.arange(64) + 0.5)).sum() / columns.sum()) == pytest.approx(32, abs=0.6)
    assert torch.equal(resize_and_crop(frames.float() / 255, 64, 64), out)


def test_the_clips_end_is_encoded_as_the_whole_clip() -> None:
    """Encoding chunk by chunk equals encoding the last whole blocks at once, with one call for each latent frame."""
    vae = load_mini().vae
    frames = torch.rand(31, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    calls: list[None] = []
    with torch.no_grad():
        latents = encode_clip(frames, vae, LatentShape(1, 48, 8, 2, 2), lambda: calls.append(None))
        whole = vae.normalise(vae.encode(frames[2:].movedim(-1, 0)[None] * 2 - 1))
    assert latents.shape == (1, 48, 8, 2, 2) and len(calls) == 8
    assert torch.equal(latents, whole)


def test_a_clip_is_a_finished_film() -> None:
    """Its blocks are the clip's latents, read without a model, under one prompt."""
    latents = torch.randn(1, 48, 16, 2, 2, generator=torch.Generator().manual_seed(2))
    film = Film.from_latents(plan_clip(2, "a fox\n  in the snow", 30.0), latents)
    assert (film.complete, film.needs_model, film.available, film.plan.fps) == (True, False, 2, 30.0)
    assert torch.equal(torch.cat([block.latents for block in film.run()], dim=2), latents)
    assert {block.prompt for block in film.plan.blocks} == {"a fox in the snow"}
    with pytest.raises(ValueError, match="12 latent frames"):
        Film.from_latents(film.plan, latents[:, :, :12])


def test_a_shot_of_its_own_is_planned_as_a_script_of_one() -> None:
    """Length, seed and style do what they do in a script; signs in the prompt mean nothing."""
    plan = plan_shot("a {fox} | @seed=3", Length(Decimal("4"), "s"), 7, "oil painting")
    assert len(plan.blocks) == 3
    assert {(block.prompt, block.seed) for block in plan.blocks} == {("a {fox} | @seed=3, oil painting", 7)}
    with pytest.raises(ValueError, match="prompt is empty"):
        plan_shot(" \n", Length(Decimal("4"), "s"))
    with pytest.raises(ValueError, match="limit is 10000"):
        plan_shot("x" * 10_001, Length(Decimal("4"), "s"))
    with pytest.raises(ScriptError, match="shortest shot is one block"):
        plan_shot("a fox", Length(Decimal("0.1"), "s"))


def test_a_film_goes_on_without_a_cut_where_it_is_asked_to() -> None:
    """`then` announces a cut; without a cut the scene continues as a new shot under its plain prompt."""
    first, second = (plan_shot(prompt, Length(Decimal(1), "blocks")) for prompt in ("a fox", "a hare"))
    with_cut, without = first.then(second).blocks[-1], first.then(second, cut=False).blocks[-1]
    assert (with_cut.cut, with_cut.prompt, with_cut.shot) == (True, "The scene transitions. a hare", 1)
    assert (without.cut, without.prompt, without.shot) == (False, "a hare", 1)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


def write_video(path: Path, frames: int = FRAMES, fps: int | Fraction = 24) -> Path:
    """A grey that grows brighter frame by frame, wider than high."""
    levels = torch.linspace(20, 230, frames).to(torch.uint8)
    with VideoWriter(path, width=64, height=48, fps=fps) as writer:
        writer.write(levels[:, None, None, None].expand(-1, 48, 64, 3).contiguous())
    return path


def settings(video: Path, **more: object) -> RenderSettings:
    return RenderSettings(None, video.with_name("film.mp4"), size="32x32", steps=2, **more)  # type: ignore[arg-type]


def extend(
    settings: RenderSettings, video: Path, prompt: str, mini: Mini, stop: Callable[[], bool] = lambda: False
) -> Job:
    return Job(settings, video=GivenVideo(settings, video, prompt, BEHIND, stop), mini=mini, should_stop=stop)


def extended(video: Path, mini: Mini, stop: Callable[[], bool] = lambda: False) -> Job:
    return extend(settings(video), video, "{thing}", mini, stop)


def test_a_clip_at_the_films_rate_is_every_frame(video: Path) -> None:
    """In pieces of one frame, then four, from any frame on."""
    clip = Clip(video, 24)
    for start in (0, 2):
        pieces = list(clip.pieces(start))
        assert [len(piece) for piece in pieces[:3]] == [1, 4, 4]
        assert torch.equal(torch.cat(pieces), read_video(video)[start:])
    assert clip.frames == FRAMES


@pytest.mark.parametrize("fps", [12, 25, 30, Fraction(30000, 1001), 60])
def test_a_clip_of_another_rate_keeps_its_time(tmp_path: Path, fps: int | Fraction) -> None:
    """Of each moment it shows the nearest frame, for as long as the clip lasts."""
    source = read_video(write_video(tmp_path / "clip.mp4", 40, fps))
    clip = Clip(tmp_path / "clip.mp4", 24)
    assert clip.frames == round(40 / fps * 24)
    shown = torch.cat(list(clip.pieces()))
    nearest = [min(range(40), key=lambda i: (abs(i / fps - Fraction(n, 24)), i)) for n in range(clip.frames)]
    assert torch.equal(shown, source[nearest])


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    """A file that is no video is refused by name, and a missing file is reported as missing."""
    (tmp_path / "text.mp4").write_text("the hero")
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be read as a video"):
        Clip(tmp_path / "text.mp4", 24)
    with pytest.raises(FileNotFoundError):
        Clip(tmp_path / "none.mp4", 24)


def test_a_video_is_the_beginning_of_a_film(video: Path, mini: Mini) -> None:
    """All its whole blocks are in the film as the VAE sees them, and the shots behind it are made after them."""
    job = extended(video, mini)
    assert job.run() and job.film.report is not None and job.take is not None
    assert (job.film.report.stored, job.film.report.sampled) == ([0, 1], [2, 3])
    assert any("the first 2 frames of the video, 0.08 s, are left out" in note for note in job.notes)
    with torch.no_grad():
        clip = encode_clip(read_video(video), mini.vae, LatentShape(1, 48, 8, 2, 2), lambda: None)
    take = Take.load(job.take.folder)
    assert torch.equal(torch.cat(latents(take)[:2], dim=2), clip)
    assert take.complete and [shot.versions[0].made for shot in take.shots] == ["video", "render", "render"]
    assert take.plan.blocks[0].prompt == "the hero"
    assert len(read_video(take.film)) == take.plan.video_frames
    again, new_notes = resume(take, mini)
    assert again.film.report is not None and not again.film.report.sampled and not new_notes


@pytest.mark.parametrize("made", [2, 3])
def test_a_video_is_extended_to_the_bit_after_a_stop(video: Path, mini: Mini, made: int) -> None:
    """The job was stopped after that many blocks, including those of the video."""
    whole = extended(video, mini)
    assert whole.run() and whole.take is not None
    expected, folder = latents(whole.take), whole.take.folder
    shutil.rmtree(folder)
    stopped = extended(video, mini, stop=lambda: len(list(folder.rglob("block_*.safetensors"))) >= made)
    assert not stopped.run() and stopped.take is not None
    assert stopped.take.block_count() == made
    job, _ = resume(stopped.take, mini)
    assert job.film.report is not None and len(job.film.report.sampled) == BLOCKS - made
    assert all(same(latents(stopped.take), expected))


@pytest.mark.parametrize("calls", [0, 30, FRAMES + 1, FRAMES + 12])
def test_a_stop_before_the_video_is_kept_leaves_nothing(video: Path, mini: Mini, calls: int) -> None:
    """A stop while a given video is read or encoded leaves no take and no film."""
    with pytest.raises(ClipStopped):
        extended(video, mini, stop=after(calls))
    assert [path.name for path in video.parent.iterdir()] == [video.name]


@pytest.mark.linux
def test_a_disk_too_full_for_the_video_leaves_nothing(video: Path, mini: Mini) -> None:
    """A disk too full for a given video's blocks is an error with a remedy, and leaves no take and no film."""
    with files_no_larger_than(5_000), pytest.raises(OSError, match="free disk space"):
        extended(video, mini)
    assert [path.name for path in video.parent.iterdir()] == [video.name]


def test_another_film_of_that_name_is_not_lost(video: Path, mini: Mini) -> None:
    """A stop while a video is encoded leaves no take; the same film may be begun again."""
    job = extended(video, mini)
    assert job.run() and job.take is not None
    other = settings(video)
    with pytest.raises(FileExistsError, match=r"holds another film; give this one another name"):
        extend(other, video, "the other", mini)
    assert job.take.complete
    assert extended(video, mini).run()


def test_a_given_video_is_not_made_again(video: Path, mini: Mini) -> None:
    """The shot of a given video has no retakes and no versions, and a missing block of it is not sampled."""
    job = extended(video, mini)
    assert job.run() and job.take is not None
    take = job.take
    for change in (lambda: retake(take, 1), lambda: choose(take, 1, 0)):
        with pytest.raises(ValueError, match="shot 1 is a given video"):
            change()
    take.path(take.plan.blocks[1]).unlink()
    with pytest.raises(ValueError, match=r"block_00001.* is missing: it is part of a given video"):
        Job(RenderSettings.resumed(take.folder), mini=mini)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (" ", "no prompt"),
        ("the hero | the other", "more than one shot"),
        ("{nobody}", r"the video's prompt: unknown name \{nobody\}"),
    ],
)
def test_a_bad_prompt_is_refused_before_anything_is_written(video: Path, mini: Mini, prompt: str, message: str) -> None:
    """A prompt for a given video that is empty, has two shots or an unknown name is refused before a file is made."""
    with pytest.raises(ValueError, match=message):
        extend(settings(video), video, prompt, mini)
    assert [path.name for path in video.parent.iterdir()] == [video.name]


def test_the_command_line_extends_a_video(
    capsys: pytest.CaptureFixture[str], video: Path, mini: Mini, tmp_path: Path
) -> None:
    """`longlive extend` adds shots to a video, and then to its take; without prompt or another film it is refused."""
    mini.save(tmp_path / "mini", torch.float32)
    script, film = tmp_path / "script.txt", tmp_path / "film.mp4"
    script.write_text(BEHIND)
    words = ["extend", str(video), str(script), "--model", str(tmp_path / "mini"), "--size", "32x32", "--steps", "1"]
    for missing in (["-o", str(film)], ["--prompt", "the hero"], ["-o", str(video), "--prompt", "the hero"]):
        assert main([*words, *missing]) == 2
    assert not film.exists() and not film.with_suffix(".take").exists()
    assert main([*words, "-o", str(film), "--prompt", "{thing}"]) == 0
    printed = capsys.readouterr().out
    assert "reused 2 blocks, sampled 2, of 4" in printed
    assert "shot 2 continues shot 1; step across the seam" in printed
    assert len(read_video(film)) == 29 + 3 * 32
    assert main(["extend", str(film.with_suffix(".take")), str(script)]) == 0
    assert "reused 4 blocks, sampled 2, of 6" in capsys.readouterr().out
    assert main(["retake", str(film.with_suffix(".take")), "--shot", "1"]) == 2
