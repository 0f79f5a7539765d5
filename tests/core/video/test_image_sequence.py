"""A film as a folder of pictures loses nothing, and every picture in it is whole."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.video import open_film, read_video
from PIL import Image

from ..full_disk import files_no_larger_than
from .films import SIZE, WORKFLOW, moving, tone


def test_pictures_come_back_to_the_bit_with_the_workflow_in_each(tmp_path: Path) -> None:
    """Numbered from 1, 24 bits, on disk as soon as they are written."""
    path, film = tmp_path / "film", moving(5)
    with open_film(path, width=SIZE, height=SIZE, codec="png", metadata=WORKFLOW) as writer:
        for number in range(5):
            writer.start_block()
            writer.write(film[number : number + 1])
            assert len(read_video(path)) == writer.frames == number + 1
    assert sorted(file.name for file in path.iterdir()) == [f"{number:06}.png" for number in range(1, 6)]
    assert torch.equal(read_video(path), film)
    with Image.open(path / "000003.png") as picture:
        assert picture.mode == "RGB"
        assert picture.text == WORKFLOW


def test_the_sound_lies_beside_the_pictures(tmp_path: Path) -> None:
    """It is there while the film is made, whole, and as long as the film when that is done."""
    path = tmp_path / "film"
    with open_film(path, width=SIZE, height=SIZE, codec="png", audio=tone(3.0, 16_000, 2)) as writer:
        with wave.open(str(path / "sound.wav")) as sound:
            assert sound.getparams()[:4] == (2, 2, 16_000, 48_000)
        writer.write(moving(36))
    with wave.open(str(path / "sound.wav")) as sound:
        assert sound.getnframes() == 24_000
        samples = torch.frombuffer(bytearray(sound.readframes(24_000)), dtype=torch.int16).view(-1, 2)
    assert int((samples[:, 1].abs() > 6_000).nonzero()[0]) / 16_000 == pytest.approx(0.5, abs=0.001)


def test_a_film_takes_the_place_of_an_older_one_and_of_nothing_else(tmp_path: Path) -> None:
    """No picture of a longer film is left behind it; a folder with other files is not touched."""
    path = tmp_path / "film"
    for frames in (9, 4):
        with open_film(path, width=SIZE, height=SIZE, codec="png") as writer:
            writer.write(moving(frames))
            (path / "000009.partial").touch()
    with open_film(path, width=SIZE, height=SIZE, codec="png") as writer:
        writer.write(moving(3))
    assert len(list(path.iterdir())) == 3
    (path / "holiday.jpg").touch()
    with pytest.raises(FileExistsError, match=r"holds holiday\.jpg.*choose another folder"):
        open_film(path, width=SIZE, height=SIZE, codec="png")
    assert len(list(path.iterdir())) == 4


@pytest.mark.linux
def test_a_full_disk_leaves_whole_pictures(tmp_path: Path) -> None:
    """The picture that did not fit is not there, not even a piece of it."""
    path, film = tmp_path / "film", torch.zeros(3, SIZE, SIZE, 3, dtype=torch.uint8)
    film[2] = moving(1)[0]
    with (
        files_no_larger_than(4_000),
        pytest.raises(OSError, match=r"stopped growing at 2 pictures.*free some space") as caught,
        open_film(path, width=SIZE, height=SIZE, codec="png") as writer,
    ):
        writer.write(film)
    assert caught.value.filename == str(path)
    assert torch.equal(read_video(path), film[:2])
    assert len(list(path.iterdir())) == 2


def test_a_process_killed_in_a_picture_leaves_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a picture is never under a picture's name, and the next film removes it."""
    path, film = tmp_path / "film", moving(2)

    def killed(_: Image.Image, file: Path, **_options: object) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    writer = open_film(path, width=SIZE, height=SIZE, codec="png")
    writer.write(film)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", killed)
        writer.write(film)
    assert len(list(path.iterdir())) == 3
    assert torch.equal(read_video(path), film)
    with open_film(path, width=SIZE, height=SIZE, codec="png"):
        assert not list(path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A folder of pictures that cannot be made is refused with its path and a remedy."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "film", tmp_path / "file"):
        with pytest.raises(OSError, match=r"cannot write the film.*choose another path") as caught:
            open_film(path, width=SIZE, height=SIZE, codec="png")
        assert caught.value.filename == str(path)


def test_frames_of_another_kind_are_refused(tmp_path: Path) -> None:
    """Frames that are not uint8 are refused with the dtype and shape of the film."""
    with (
        open_film(tmp_path / "film", width=SIZE, height=SIZE, codec="png") as writer,
        pytest.raises(ValueError, match=r"uint8 \[T, 64, 64, 3\]"),
    ):
        writer.write(torch.zeros(4, SIZE, SIZE, 3))
