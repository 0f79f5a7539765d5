"""A film file grows by whole fragments, has the right colours, and plays wherever it was cut off."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from longlive.longlive_core.video import CODECS, QUALITIES, Audio, VideoWriter, open_film, read_video
from longlive.longlive_core.video.reader import open_truncated
from torch import Tensor

from ..full_disk import files_no_larger_than
from .films import OFFERED, SIZE, WORKFLOW, film_name, fragments, gliding, moving, psnr, tone, whole_pieces


def write(path: Path, film: Tensor, block: int = 32) -> None:
    with VideoWriter(path, width=SIZE, height=SIZE) as writer:
        for frames in film.split(block):
            writer.start_block()
            for piece in frames.split(4):
                writer.write(piece)


def test_every_frame_comes_back_in_order(tmp_path: Path) -> None:
    """A film file plays every frame that was written, in order."""
    film = moving(50)
    write(tmp_path / "film.mp4", film)
    played = read_video(tmp_path / "film.mp4")
    assert played.shape == film.shape
    red = played[:, 20, :, 0].float()
    assert [int((row > 180).nonzero()[0]) for row in red] == pytest.approx([i % 24 for i in range(50)], abs=1)


@pytest.mark.parametrize("colour", [(225, 45, 45), (60, 190, 75), (60, 95, 235), (255, 255, 255), (0, 0, 0)])
def test_colours_are_kept(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    """A wrong matrix (BT.601 for BT.709) or range shifts these by 10 and more."""
    film = torch.tensor(colour, dtype=torch.uint8).expand(4, SIZE, SIZE, 3).contiguous()
    write(tmp_path / "film.mp4", film)
    assert (read_video(tmp_path / "film.mp4").int() - film.int()).abs().max() <= 4


@pytest.mark.parametrize(("fps", "rate"), [(30000 / 1001, "30000/1001"), (29.97, "2997/100"), (24.0, "24")])
def test_broadcast_rates_are_kept(tmp_path: Path, fps: float, rate: str) -> None:
    """A rate that comes as a float, as of a video that is gone on from, is the file's to the frame."""
    with VideoWriter(tmp_path / "film.mp4", width=SIZE, height=SIZE, fps=Fraction(fps)) as writer:
        writer.write(moving(5))
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert file.streams.video[0].average_rate == Fraction(rate)


def test_the_stream_says_what_it_is(tmp_path: Path) -> None:
    """The stream is H.264 in yuv420p and BT.709 at 24 fps, with one key frame at the start of each block."""
    write(tmp_path / "film.mp4", moving(70))
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 24)
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 1, 1, 1)
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
    numbers = [round(packet.pts * packet.time_base * 24) for packet in packets]
    assert numbers == list(range(70))
    assert [n for n, packet in zip(numbers, packets, strict=True) if packet.is_keyframe] == [0, 32, 64]


def test_the_file_grows_while_it_is_written(tmp_path: Path) -> None:
    """After any write the file is short of the film by one frame at most, and plays so far."""
    path, film, written = tmp_path / "film.mp4", moving(60), 0
    with VideoWriter(path, width=SIZE, height=SIZE) as writer:
        assert len(read_video(path)) == 0
        for piece in film.split(4):
            writer.write(piece)
            written += len(piece)
            assert sum(frames for _, frames in fragments(path.read_bytes())) >= written - 1
    assert len(read_video(path)) == 60


@pytest.mark.slow
def test_a_film_cut_off_anywhere_plays_to_its_last_whole_fragment(tmp_path: Path) -> None:
    """A film cut off anywhere behind its header plays to its last whole fragment, to the bit."""
    path, torn = tmp_path / "film.mp4", tmp_path / "torn.mp4"
    write(path, moving(60))
    data, whole = path.read_bytes(), read_video(path)
    header = data.index(b"moof") - 4
    for length in torch.randint(header, len(data), (25,), generator=torch.Generator().manual_seed(0)).tolist():
        torn.write_bytes(data[:length])
        expected = sum(frames for _, frames in fragments(data[:length]))
        played = read_video(torn)
        assert len(played) >= expected
        assert torch.equal(played[:expected], whole[:expected])


@pytest.mark.linux
@pytest.mark.parametrize("codec", ["h264", "vp9", "prores"])
def test_a_full_disk_costs_only_the_fragment_that_did_not_fit(tmp_path: Path, codec: str) -> None:
    """A full disk is an error with the path and a remedy, and the file ends with a whole fragment and plays."""
    path = tmp_path / film_name(codec)
    with (
        files_no_larger_than(60_000),
        pytest.raises(OSError, match=r"stopped growing at [\d,]+ bytes.*free some space") as caught,
        open_film(path, width=SIZE, height=SIZE, codec=codec) as writer,
    ):
        for piece in moving(120).split(4):
            writer.write(piece)
    assert caught.value.filename == str(path)
    data = path.read_bytes()
    ends = whole_pieces(data)
    assert ends[-1][0] == len(data) <= 60_000
    assert len(read_video(path)) == sum(frames for _, frames in ends) > 0


@pytest.mark.linux
def test_a_full_disk_at_the_start_is_an_error_at_the_start() -> None:
    """A disk that is full from the start is an error when the writer is made."""
    with pytest.raises(OSError, match="free some space"):
        VideoWriter("/dev/full", width=SIZE, height=SIZE)


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A film path that cannot be written is refused with the path and a remedy."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "film.mp4", tmp_path / "file" / "film.mp4", tmp_path):
        with pytest.raises(OSError, match=r"cannot write the film.*choose another path") as caught:
            VideoWriter(path, width=SIZE, height=SIZE)
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("frames", [torch.zeros(4, SIZE, SIZE, 3), torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)])
def test_frames_of_another_kind_are_refused(tmp_path: Path, frames: Tensor) -> None:
    """Frames that are not uint8 `[T, H, W, 3]` are refused."""
    with (
        VideoWriter(tmp_path / "film.mp4", width=SIZE, height=SIZE) as writer,
        pytest.raises(ValueError, match=r"uint8 \[T, 64, 64, 3\]"),
    ):
        writer.write(frames)


def test_odd_sizes_are_refused_before_a_file_is_made(tmp_path: Path) -> None:
    """An odd width is refused with the size, before a file is made."""
    with pytest.raises(ValueError, match="63x64"):
        VideoWriter(tmp_path / "film.mp4", width=63, height=64)
    assert not (tmp_path / "film.mp4").exists()


@pytest.mark.parametrize("codec", OFFERED)
def test_every_codec_keeps_the_picture(tmp_path: Path, codec: str) -> None:
    """Every frame comes back, above 30 dB, with key frames where blocks start, and says BT.709 at a constant rate."""
    film, path = gliding(50), tmp_path / film_name(codec)
    with open_film(path, width=SIZE, height=SIZE, codec=codec) as writer:
        for block in film.split(32):
            writer.start_block()
            writer.write(block)
        assert (writer.width, writer.height, writer.frames) == (SIZE, SIZE, 50)
    played = read_video(path)
    assert played.shape == film.shape
    assert psnr(played, film) > 30
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        colours = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert (context.pix_fmt, stream.average_rate, *colours) == (CODECS[codec].pixels, 24, 1, 1, 1, 1)
        assert codec != "h265" or context.codec_tag == "hvc1"
        assert container.duration is not None and container.duration / 1e6 == pytest.approx(50 / 24, abs=0.002)
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
    assert [round(packet.pts * packet.time_base * 24) for packet in packets] == list(range(50))
    keys = [0, 32] if codec != "prores" else list(range(50))
    assert [n for n, packet in enumerate(packets) if packet.is_keyframe] == keys
    with av.open(str(path)) as container:  # players believe the frames before the container
        frame = next(container.decode(video=0))
        assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (1, 1, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("sound", [None, tone(1.0, 48_000, 1), tone(9.0, 16_000, 2)], ids=["mute", "short", "long"])
@pytest.mark.parametrize("codec", OFFERED)
def test_the_file_is_never_behind_by_more_than_a_frame(tmp_path: Path, codec: str, sound: Audio | None) -> None:
    """With any codec and any sound a frame is on disk, in its own fragment, as soon as the next one is written."""
    path, film = tmp_path / film_name(codec), gliding(60)
    with VideoWriter(path, width=SIZE, height=SIZE, codec=codec, audio=sound) as writer:
        assert len(read_video(path)) == 0
        for written in range(1, 61):
            writer.write(film[written - 1 : written])
            assert sum(frames for _, frames in whole_pieces(path.read_bytes())) >= written - 1
    assert len(read_video(path)) == 60


@pytest.mark.slow
@pytest.mark.parametrize("codec", OFFERED)
def test_a_film_of_any_codec_cut_off_anywhere_plays_and_says_what_made_it(tmp_path: Path, codec: str) -> None:
    """Sound and metadata take nothing from a torn film: every whole fragment plays, and the workflow is there."""
    path, torn = tmp_path / film_name(codec), tmp_path / ("torn" + CODECS[codec].extension)
    sound = tone(9.0, 48_000, 2)
    with VideoWriter(path, width=SIZE, height=SIZE, codec=codec, audio=sound, metadata=WORKFLOW) as writer:
        header = path.stat().st_size
        writer.write(gliding(60))
        open_ended = path.read_bytes()
    data, whole = path.read_bytes(), read_video(path)
    ends = [end for end, _ in whole_pieces(data)]
    last = ends[-2]
    cuts = torch.randint(header, len(data), (12,), generator=torch.Generator().manual_seed(0)).tolist()
    for length in [*(header + more for more in (0, 1, 2, 3, 5, 9)), *cuts, last, last + 3, last + 50]:
        for state in (data, open_ended):  # webm writes its header again at the end
            torn.write_bytes(state[:length])
            expected = sum(frames for _, frames in whole_pieces(state[:length]))
            played = read_video(torn)
            assert len(played) >= expected
            assert torch.equal(played[:expected], whole[:expected])
    for length in [*ends, last - 9]:
        torn.write_bytes(data[:length])
        with open_truncated(torn) as container:
            assert {name.lower(): text for name, text in container.metadata.items()}.items() >= WORKFLOW.items()


@pytest.mark.slow
@pytest.mark.parametrize("codec", OFFERED)
def test_better_qualities_make_larger_and_truer_films(tmp_path: Path, codec: str) -> None:
    """The names are in order, from best to smallest; a crf outvotes them."""
    film, found = moving(24), []
    for quality in QUALITIES:
        with VideoWriter(tmp_path / quality, width=SIZE, height=SIZE, codec=codec, quality=quality) as writer:
            writer.write(film)
        found.append(((tmp_path / quality).stat().st_size, psnr(read_video(tmp_path / quality), film)))
    assert found == sorted(found, reverse=True)
    assert [size for size, _ in found] == sorted({size for size, _ in found}, reverse=True)
    if CODECS[codec].crf_limit is None:
        return
    crf = QUALITIES["small"][codec]
    with VideoWriter(tmp_path / "crf", width=SIZE, height=SIZE, codec=codec, quality="best", crf=crf) as writer:
        writer.write(film)
    assert (tmp_path / "crf").read_bytes() == (tmp_path / "small").read_bytes()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"codec": "divx"}, "'divx' is unknown; choose one of " + ", ".join(OFFERED)),
        ({"quality": "superb"}, "'superb' is unknown; choose one of best, high, medium, small"),
        ({"crf": 52}, r"crf 52 is out of range for h264; choose 0 \(best\) to 51"),
        ({"codec": "prores", "crf": 20}, "crf 20: prores has no crf, it has qualities: best, high, medium, small"),
        ({"codec": "png", "crf": 20}, "crf 20: png has no crf, it is lossless; leave crf out"),
    ],
)
def test_a_wrong_choice_names_the_right_ones_before_a_file_is_made(
    tmp_path: Path, choice: dict[str, str | int], message: str
) -> None:
    """A wrong codec, quality or crf is refused with the valid choices, before a file is made."""
    path = tmp_path / film_name(codec if (codec := str(choice.get("codec"))) in CODECS else "h264")
    with pytest.raises(ValueError, match=message):
        open_film(path, width=SIZE, height=SIZE, **choice)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "codec", "message"),
    [
        ("film.webm", "h264", r"a film in h264 is an mp4; name it .*film\.mp4"),
        ("film", "vp9", r"a film in vp9 is a webm; name it .*film\.webm"),
        ("film.mp4", "prores", r"a film in prores is a mov; name it .*film\.mov"),
        ("film.mov", "png", r"a film in png is a folder of numbered pictures; name it .*film$"),
        ("film.2.mp4", "vp9", r"name it .*film\.2\.webm"),
    ],
)
def test_a_path_has_the_extension_of_its_codec(tmp_path: Path, name: str, codec: str, message: str) -> None:
    """A file that says mp4 is one: another name is refused, with the right one, before anything is made."""
    with pytest.raises(ValueError, match=message):
        open_film(tmp_path / name, width=SIZE, height=SIZE, codec=codec)
    assert not list(tmp_path.iterdir())


def test_a_codec_that_av_lacks_is_named_with_the_ones_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of av without an encoder says which one is missing and what else would do."""
    monkeypatch.setattr(av, "codecs_available", {"libx264", "libaom-av1"})
    with pytest.raises(ValueError, match=r"'h265' needs libx265, which this av lacks; choose one of h264, av1"):
        VideoWriter(tmp_path / "film.mp4", width=SIZE, height=SIZE, codec="h265")


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (128, 64)], ids=str)
def test_h265_of_small_pictures_is_the_same_each_time(tmp_path: Path, size: tuple[int, int]) -> None:
    """A film of any size is compressed to the same bytes every time."""
    if "h265" not in OFFERED:
        pytest.skip("this av has no encoder for h265")
    width, height = size
    film = gliding(20).repeat(1, 2, 2, 1)[:, :height, :width].contiguous()
    films = set[bytes]()
    for number in range(6):
        path = tmp_path / f"{number}.mp4"
        with open_film(path, width=width, height=height, codec="h265") as writer:
            writer.write(film)
        films.add(path.read_bytes())
    assert len(films) == 1
