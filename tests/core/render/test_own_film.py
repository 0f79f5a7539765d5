"""The film of a take that was copied, renamed or is on a disk that cannot be written, and the sound of a video."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render import given_video, prepare_take
from longlive.longlive_core.render.given_video import GivenVideo
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take, retake
from longlive.longlive_core.video import read_video

from ..takes import latents, make_settings, make_take, resume, same
from ..video.clips import beep, greys, onset, write_frames
from ..video.films import hear

# Films are rendered by nearly every test here.
pytestmark = pytest.mark.slow


@pytest.fixture
def take(mini: Mini, tmp_path: Path) -> Take:
    return make_take(mini, make_settings(tmp_path))


@pytest.mark.parametrize(
    ("recorded", "codec", "folder", "film"),
    [
        ("film.mp4", "h264", "film.take", "film.mp4"),
        ("film.mp4", "h264", "copy.take", "copy.mp4"),
        ("film.mp4", "h264", "film (copy).take", "film (copy).mp4"),
        ("film.webm", "vp9", "b.take", "b.webm"),
        ("film.mov", "prores", "b.c.take", "b.c.mov"),
        ("film", "png", "film.take", "film"),
        ("film", "png", "b.take", "b"),
        ("my.film.mp4", "h264", "my.film.take", "my.film.mp4"),
        ("film.mp4", "h264", "film.take.bak", "film.take.mp4"),
    ],
)
def test_a_take_names_its_own_film(take: Take, recorded: str, codec: str, folder: str, film: str) -> None:
    """A copy or a renamed take has the film of its own name, with the recorded extension."""
    moved = replace(take, folder=take.folder.with_name(folder), output={"name": recorded, "codec": codec})
    assert moved.film == take.folder.with_name(film)


def test_a_copied_take_leaves_the_films_of_the_original(mini: Mini, take: Take) -> None:
    """A retake of a copy writes the copy's film, with blocks of the original's, which stays to the byte."""
    whole, blocks = take.film.read_bytes(), latents(take)
    copy = Take.load(Path(shutil.copytree(take.folder, take.folder.with_name("copy.take"))))
    job = Job(RenderSettings.resumed(copy.folder), take=retake(copy, 5, seed=5).take, mini=mini)
    assert job.run()
    assert take.film.read_bytes() == whole
    assert all(same(latents(take), blocks))
    assert copy.film.name == "copy.mp4" and len(read_video(copy.film)) == take.plan.video_frames
    assert job.render.copied > 0
    with pytest.raises(FileExistsError, match=r"film.mp4 is the film of .*film.take.*another file with -o"):
        Job(RenderSettings.resumed(copy.folder, take.film), mini=mini)
    assert take.film.read_bytes() == whole


def test_a_renamed_take_is_resumed_as_its_own_film(mini: Mini, take: Take) -> None:
    """Renamed, a take makes a film of the new name; an older film of the old name is left alone."""
    whole, old = take.film.read_bytes(), take.film
    renamed = Take.load(take.folder.rename(take.folder.with_name("renamed.take")))
    resume(renamed, mini)
    assert renamed.film.name == "renamed.mp4" and renamed.film.read_bytes() == whole == old.read_bytes()


def test_a_complete_take_is_exported_from_a_disk_that_cannot_be_written(
    mini: Mini, take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an output elsewhere nothing in the take is written; an incomplete take is an error as before."""

    def read_only(folder: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr(prepare_take, "TakeLock", read_only)
    before = {path: path.stat().st_mtime_ns for path in take.folder.rglob("*")}
    for folder in [path for path in take.folder.rglob("*") if path.is_dir()]:
        folder.chmod(0o555)
    job = Job(RenderSettings.resumed(take.folder, tmp_path / "export.webm", {"codec": "vp9"}), mini=mini)
    assert job.run()
    assert len(read_video(tmp_path / "export.webm")) == take.plan.video_frames
    assert {path: path.stat().st_mtime_ns for path in take.folder.rglob("*")} == before
    for folder in [path for path in take.folder.rglob("*") if path.is_dir()]:
        folder.chmod(0o755)
    take.path(take.plan.blocks[-1]).unlink()
    with pytest.raises(OSError, match="Read-only"):
        Job(RenderSettings.resumed(take.folder, tmp_path / "export.mp4"), mini=mini)


def video_with_sound(path: Path, channels: int = 2) -> Path:
    """63 frames, of which the film keeps the last 61, with a beep at 0.5 s."""
    sound = (beep(2.6, 48_000, channels, 0.5), 48_000, "pcm_s16le", 0.0)
    return write_frames(path, greys([60] * 63, 64, 48), codec="libx264", sound=sound)


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "h264"), ("film.webm", "vp9"), ("film.mov", "prores")])
def test_the_sound_of_a_video_is_in_its_film(tmp_path: Path, mini: Mini, name: str, codec: str) -> None:
    """From where the kept frames begin, and again in every later file of the film."""
    video = video_with_sound(tmp_path / "clip.mkv", 6 if codec == "vp9" else 2)
    settings = RenderSettings(None, tmp_path / name, size="32x32", steps=1, codec=codec)
    given = GivenVideo(settings, video, "the hero", "Shot 1 (1 block): the other", None)
    job = Job(settings, video=given, mini=mini)
    assert job.run() and job.take is not None
    assert any("sound is kept" in note for note in job.notes)
    assert any("6 channels" in note for note in job.notes) == (codec == "vp9")
    first = job.settings.output.read_bytes()
    for _ in range(2):
        heard, rate = hear(job.settings.output)
        assert len(heard) == 2
        assert onset(heard[0], rate) == pytest.approx(0.5 - 2 / 24, abs=0.003)
        job, _ = resume(job.take, mini)
        assert job.take is not None
    if codec != "vp9":
        assert job.settings.output.read_bytes() == first
    other = Job(
        RenderSettings(settings_script(tmp_path), tmp_path / name, size="32x32", steps=1, codec=codec), mini=mini
    )
    assert other.run() and other.take is not None
    assert not other.take.sound.exists()


def test_a_sound_that_cannot_be_written_leaves_no_take(
    tmp_path: Path, mini: Mini, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full before the first block leaves nothing, as one that is full later does."""
    settings = RenderSettings(None, tmp_path / "film.mp4", size="32x32", steps=1)
    given = GivenVideo(settings, video_with_sound(tmp_path / "clip.mkv"), "the hero", "Shot 1 (1 block): it", None)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(given_video, "write_wave", full)
    with pytest.raises(OSError, match="No space"):
        Job(settings, video=given, mini=mini)
    assert not (tmp_path / "film.take").exists()


def settings_script(folder: Path) -> Path:
    script = folder / "other.txt"
    script.write_text("Shot 1 (1 block): the hero")
    return script
