"""A film file grows by whole fragments, has the right colours, and plays wherever it was cut off."""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
import torch
from longlive.longlive_core.contact_sheet import MARGIN, STILL_WIDTH, ContactSheet
from longlive.longlive_core.types import BlockSpec
from longlive.longlive_core.video import FRAGMENT_SECONDS, VideoWriter, read_video
from torch import Tensor

SIZE = 64


def moving(frames: int, seed: int = 0) -> Tensor:
    """A bright square over noise, `[frames, SIZE, SIZE, 3]`: every frame is another, and none compresses to nothing."""
    film = torch.randint(
        0, 90, (frames, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    for i in range(frames):
        film[i, 8:40, i % 24 : i % 24 + 32] = torch.tensor([230, 60, 40], dtype=torch.uint8)
    return film


def write(path: Path, film: Tensor, block: int = 32) -> None:
    with VideoWriter(path, width=SIZE, height=SIZE) as writer:
        for frames in film.split(block):
            writer.start_block()
            for piece in frames.split(4):
                writer.write(piece)


def fragments(data: bytes) -> list[tuple[int, int]]:
    """(end in bytes, frames) of every whole fragment, read box by box."""
    found, at, samples = [], 0, 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if at + size > len(data):
            break
        if kind == b"moof":
            trun = data.index(b"trun", at)
            samples = struct.unpack(">I", data[trun + 8 : trun + 12])[0]
        elif kind == b"mdat":
            found.append((at + size, samples))
        at += size
    return found


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What a full disk does to whoever writes: the kernel refuses bytes beyond `size`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_every_frame_comes_back_in_order(tmp_path: Path) -> None:
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


def test_the_stream_says_what_it_is(tmp_path: Path) -> None:
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
    """After any write the file is short of the film by less than a fragment and a frame, and plays so far."""
    path, film, written = tmp_path / "film.mp4", moving(60), 0
    with VideoWriter(path, width=SIZE, height=SIZE) as writer:
        assert len(read_video(path)) == 0
        for piece in film.split(4):
            writer.write(piece)
            written += len(piece)
            assert sum(frames for _, frames in fragments(path.read_bytes())) >= written - 24 * FRAGMENT_SECONDS - 1
    assert len(read_video(path)) == 60


def test_a_film_cut_off_anywhere_plays_to_its_last_whole_fragment(tmp_path: Path) -> None:
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


def test_a_full_disk_costs_only_the_fragment_that_did_not_fit(tmp_path: Path) -> None:
    path, film = tmp_path / "film.mp4", moving(120)
    with (
        files_no_larger_than(30_000),
        pytest.raises(OSError, match=r"stopped growing at [\d,]+ bytes.*free some space") as told,
    ):
        write(path, film)
    assert told.value.filename == str(path)
    data = path.read_bytes()
    ends = fragments(data)
    assert ends[-1][0] == len(data) <= 30_000
    assert len(read_video(path)) == sum(frames for _, frames in ends) > 0


def test_a_full_disk_at_the_start_is_an_error_at_the_start() -> None:
    with pytest.raises(OSError, match="free some space"):
        VideoWriter("/dev/full", width=SIZE, height=SIZE)


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "film.mp4", tmp_path / "file" / "film.mp4", tmp_path):
        with pytest.raises(OSError, match=r"cannot write the film.*choose another path") as told:
            VideoWriter(path, width=SIZE, height=SIZE)
        assert told.value.filename == str(path)


@pytest.mark.parametrize("frames", [torch.zeros(4, SIZE, SIZE, 3), torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)])
def test_frames_of_another_kind_are_refused(tmp_path: Path, frames: Tensor) -> None:
    with (
        VideoWriter(tmp_path / "film.mp4", width=SIZE, height=SIZE) as writer,
        pytest.raises(ValueError, match=r"uint8 \[T, 64, 64, 3\]"),
    ):
        writer.write(frames)


def test_odd_sizes_are_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="63x64"):
        VideoWriter(tmp_path / "film.mp4", width=63, height=64)
    assert not (tmp_path / "film.mp4").exists()


def shots(*blocks: int) -> list[BlockSpec]:
    owners = [shot for shot, count in enumerate(blocks) for _ in range(count)]
    return [BlockSpec(i, shot, "", False, None, 8 * i, 8) for i, shot in enumerate(owners)]


def test_a_contact_sheet_shows_the_middle_of_every_shot() -> None:
    """Every frame is as grey as its number is high, so a still tells where it is from."""
    blocks = shots(2, 1, 3)
    sheet = ContactSheet(blocks, ["one", "two", "three"])
    for block in blocks:
        numbers = torch.arange(block.video_start, block.video_start + block.video_frames, dtype=torch.uint8)
        sheet.add(block.video_start, numbers.view(-1, 1, 1, 1).expand(-1, SIZE, SIZE, 3).contiguous())
    picture = sheet.draw()
    columns = (picture.width - MARGIN) // (STILL_WIDTH + MARGIN)
    middles = [61 // 2, (61 + 93) // 2, (93 + 189) // 2]
    rows = -(-3 // columns)
    for i, middle in enumerate(middles):
        x = MARGIN + i % columns * (STILL_WIDTH + MARGIN) + STILL_WIDTH // 2
        y = MARGIN + i // columns * ((picture.height - MARGIN) // rows) + STILL_WIDTH // 2
        assert picture.getpixel((x, y)) == (middle, middle, middle)


def test_long_captions_wrap_inside_their_column() -> None:
    """Nothing is drawn beyond the margin, not even a word longer than the still is wide."""
    sheet = ContactSheet(shots(1), ["w" * 150 + " and then " * 60])
    sheet.add(0, torch.zeros(29, SIZE, SIZE, 3, dtype=torch.uint8))
    picture = sheet.draw()
    edge = picture.crop((MARGIN + STILL_WIDTH, 0, picture.width, picture.height))
    assert len(edge.getcolors() or []) == 1
    bottom = picture.crop((0, picture.height - MARGIN, picture.width, picture.height))
    assert len(bottom.getcolors() or []) == 1


def test_a_stopped_film_has_a_still_of_the_shot_it_stopped_in() -> None:
    sheet = ContactSheet(shots(2, 2), ["one", "two"])
    with pytest.raises(ValueError, match="at least one frame"):
        sheet.draw()
    sheet.add(0, torch.zeros(29, SIZE, SIZE, 3, dtype=torch.uint8))
    sheet.add(61, torch.zeros(4, SIZE, SIZE, 3, dtype=torch.uint8))
    assert sheet.draw().width == 2 * (STILL_WIDTH + MARGIN) + MARGIN or sheet.draw().height > 2 * STILL_WIDTH
