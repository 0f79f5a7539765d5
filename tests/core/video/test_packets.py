"""Frames of a film go into another one to the bit, without being decoded."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch
from longlive.longlive_core.video import PacketSource, open_film, read_video

from .films import OFFERED, SIZE, film_name, gliding, hear, psnr, tone, whole_pieces

BLOCK, BLOCKS = 12, 5


def make(path: Path, codec: str, quality: str = "high") -> Path:
    """A film of five blocks."""
    path.parent.mkdir(exist_ok=True)
    with open_film(path, width=SIZE, height=SIZE, codec=codec, quality=quality) as writer:
        for block in gliding(BLOCK * BLOCKS).split(BLOCK):
            writer.start_block()
            writer.write(block)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("codec", [*OFFERED, "png"])
def test_a_film_with_one_block_made_anew_has_the_others_to_the_bit(tmp_path: Path, codec: str) -> None:
    """Blocks 0, 1, 3 and 4 are copied, 2 is encoded: every frame in its place, and sound over all of them."""
    old = make(tmp_path / "old" / film_name(codec), codec)
    path, anew, packets = tmp_path / film_name(codec), gliding(BLOCK, phase=2.0), PacketSource(old)
    assert packets.frames == BLOCK * BLOCKS
    assert set(packets.keys) >= {0, 12, 24, 36, 48}
    with open_film(path, width=SIZE, height=SIZE, codec=codec, audio=tone(9.0, 48_000, 1, at=1.5)) as writer:
        assert writer.fits(packets)
        writer.copy(packets, 0, 24)
        writer.start_block()
        writer.write(anew)
        writer.copy(packets, 36, 60)
        assert writer.frames == 60
    before, after = read_video(old), read_video(path)
    assert torch.equal(after[:24], before[:24])
    assert torch.equal(after[36:], before[36:])
    assert psnr(after[24:36], anew) > 30
    if codec == "png":
        return
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    assert [round(packet.pts * packet.time_base * 24) for packet in packets] == list(range(60))
    keys = {n for n, packet in enumerate(packets) if packet.is_keyframe}
    assert keys >= {0, 12, 24, 36, 48}
    heard, rate = hear(path)
    assert heard.shape[1] / rate == pytest.approx(2.5, abs=0.045)
    assert int((heard[0].abs() > 0.2).nonzero()[0]) / rate == pytest.approx(1.5, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("codec", OFFERED)
def test_a_film_with_copied_frames_plays_wherever_it_was_cut_off(tmp_path: Path, codec: str) -> None:
    """What was copied is on disk as soon as what was encoded, and torn films play to their last whole fragment."""
    old = make(tmp_path / "old" / film_name(codec), codec)
    path, torn, packets = tmp_path / film_name(codec), tmp_path / ("torn-" + film_name(codec)), PacketSource(old)
    with open_film(path, width=SIZE, height=SIZE, codec=codec) as writer:
        header = path.stat().st_size
        writer.copy(packets, 0, 24)
        assert sum(frames for _, frames in whole_pieces(path.read_bytes())) >= 24 - 7
        writer.write(gliding(BLOCK))
        writer.copy(packets, 36, 60)
        assert sum(frames for _, frames in whole_pieces(path.read_bytes())) >= 60 - 7
        writer.write(gliding(4))  # no block begins, yet what is encoded cannot build on what was copied
    assert 60 in PacketSource(path).keys
    data, whole = path.read_bytes(), read_video(path)
    for length in torch.randint(header, len(data), (10,), generator=torch.Generator().manual_seed(1)).tolist():
        torn.write_bytes(data[:length])
        expected = sum(frames for _, frames in whole_pieces(data[:length]))
        played = read_video(torn)
        assert len(played) >= expected
        assert torch.equal(played[:expected], whole[:expected])


@pytest.mark.parametrize("codec", OFFERED)
def test_a_torn_film_gives_its_whole_frames(tmp_path: Path, codec: str) -> None:
    """The film of a killed render can be copied as far as it plays, to the bit."""
    old = make(tmp_path / "old" / film_name(codec), codec)
    data = old.read_bytes()
    old.write_bytes(data[: int(len(data) * 0.8)])
    packets, path = PacketSource(old), tmp_path / film_name(codec)
    assert sum(frames for _, frames in whole_pieces(old.read_bytes())) <= packets.frames < BLOCK * BLOCKS
    with open_film(path, width=SIZE, height=SIZE, codec=codec) as writer:
        writer.copy(packets, 0, packets.frames)
        writer.start_block()
        writer.write(gliding(BLOCK))
    played = read_video(path)
    assert len(played) == packets.frames + BLOCK
    assert torch.equal(played[: packets.frames], read_video(old)[: packets.frames])
    assert psnr(played[packets.frames :], gliding(BLOCK)) > 30


def test_frames_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Codec, size, rate and the encoder's settings are named; the film goes on as if nobody had asked."""
    packets, path = PacketSource(make(tmp_path / "old" / "film.mp4", "h264")), tmp_path / "film.mp4"
    for choice, message in (
        ({"codec": "h265"}, r"codec h264 \(this film: h265\)"),
        ({"width": 32}, r"size 64x64 \(this film: 32x64\)"),
        ({"fps": 25}, r"frames per second 24 \(this film: 25\)"),
        ({"quality": "small"}, "other encoder settings"),
    ):
        with open_film(path, **{"width": SIZE, "height": SIZE, **choice}) as writer:
            assert not writer.fits(packets)
            with pytest.raises(ValueError, match=f"film.mp4 has {message}.*encode them again"):
                writer.copy(packets, 0, 12)
            assert writer.frames == 0
    pictures = PacketSource(make(tmp_path / "old" / "film", "png"))
    with open_film(path, width=SIZE, height=SIZE) as writer, pytest.raises(ValueError, match="codec png"):
        writer.copy(pictures, 0, 12)


@pytest.mark.parametrize(("start", "stop"), [(1, 12), (0, 13), (-12, 12), (0, 72), (24, 12)])
def test_copying_begins_and_ends_at_key_frames(tmp_path: Path, start: int, stop: int) -> None:
    """A run of frames that cannot be decoded alone is refused at once."""
    packets = PacketSource(make(tmp_path / "old" / "film.mp4", "h264"))
    with (
        open_film(tmp_path / "film.mp4", width=SIZE, height=SIZE) as writer,
        pytest.raises(ValueError, match=f"frames {start} to {stop}"),
    ):
        writer.copy(packets, start, stop)
    assert len(read_video(tmp_path / "film.mp4")) == 0


def test_a_folder_without_pictures_is_no_film(tmp_path: Path) -> None:
    """A folder without numbered pictures is refused as a source of packets."""
    with pytest.raises(FileNotFoundError, match="no numbered pictures"):
        PacketSource(tmp_path)
