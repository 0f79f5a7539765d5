"""A film file grows by whole fragments, has the right colours, and plays wherever it was cut off."""

from __future__ import annotations

import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from longlive.longlive_core.audio import Audio
from longlive.longlive_core.codecs import CODECS, QUALITIES
from longlive.longlive_core.contact_sheet import MARGIN, STILL_WIDTH, ContactSheet
from longlive.longlive_core.types import BlockSpec
from longlive.longlive_core.video import FRAGMENT_SECONDS, VideoWriter, read_video
from torch import Tensor

from .full_disk import files_no_larger_than

SIZE = 64

OFFERED = [name for name, codec in CODECS.items() if set(codec.encoders) & av.codecs_available]

WORKFLOW = {"prompt": json.dumps({"1": {"text": "ein Mädchen, 雨"}}), "workflow": json.dumps({"nodes": [0] * 500})}


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


@pytest.mark.parametrize(("fps", "rate"), [(30000 / 1001, "30000/1001"), (29.97, "2997/100"), (24.0, "24")])
def test_broadcast_rates_are_kept(tmp_path: Path, fps: float, rate: str) -> None:
    """A rate that comes as a float, as of a video that is gone on from, is the file's to the frame."""
    with VideoWriter(tmp_path / "film.mp4", width=SIZE, height=SIZE, fps=Fraction(fps)) as writer:
        writer.write(moving(5))
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert file.streams.video[0].average_rate == Fraction(rate)


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


def gliding(frames: int) -> Tensor:
    """Waves that move, smooth as a film is, `[frames, SIZE, SIZE, 3]`: what is lost here, the codec has lost."""
    steps = torch.arange(SIZE) / 9
    time = torch.arange(frames).view(-1, 1, 1) / 5
    waves = [torch.sin(steps + time + hue) * torch.cos(steps[:, None] - time * hue) for hue in (0.0, 0.4, 0.8)]
    return (torch.stack(waves, dim=-1) * 90 + 128).to(torch.uint8)


def psnr(played: Tensor, film: Tensor) -> float:
    """In dB, over all frames and channels."""
    return 10 * math.log10(255**2 / (played.float() - film.float()).square().mean().item())


def tone(seconds: float, rate: int, channels: int, at: float = 0.5) -> Audio:
    """Silence, but for 50 ms of 1 kHz that begin `at` seconds."""
    waveform = torch.zeros(channels, round(seconds * rate))
    start, samples = round(at * rate), rate // 20
    waveform[:, start : start + samples] = 0.8 * torch.sin(torch.arange(samples) * 2 * math.pi * 1000 / rate)
    return Audio(waveform, rate)


def hear(path: Path) -> tuple[Tensor, int]:
    """The sound that a film plays `[C, S]`, and its rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        heard = [torch.from_numpy(frame.to_ndarray()) for frame in container.decode(stream)]
        return (torch.cat(heard, dim=1) if heard else torch.zeros(stream.channels, 0)), stream.rate


@pytest.mark.parametrize("codec", OFFERED)
def test_every_codec_keeps_the_picture(tmp_path: Path, codec: str) -> None:
    """Every frame comes back, above 30 dB, with key frames where blocks start, and says BT.709 at a constant rate."""
    film, path = gliding(50), tmp_path / "film.mp4"
    with VideoWriter(path, width=SIZE, height=SIZE, codec=codec) as writer:
        for block in film.split(32):
            writer.start_block()
            writer.write(block)
    played = read_video(path)
    assert played.shape == film.shape
    assert psnr(played, film) > 30
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        colours = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert (context.pix_fmt, stream.average_rate, *colours) == ("yuv420p", 24, 1, 1, 1, 1)
        assert codec != "h265" or context.codec_tag == "hvc1"
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
    assert [round(packet.pts * packet.time_base * 24) for packet in packets] == list(range(50))
    assert [n for n, packet in enumerate(packets) if packet.is_keyframe] == [0, 32]


@pytest.mark.parametrize("sound", [None, tone(1.0, 48_000, 1), tone(9.0, 16_000, 2)], ids=["mute", "short", "long"])
@pytest.mark.parametrize("codec", OFFERED)
def test_the_file_is_never_behind_by_more_than_a_fragment(tmp_path: Path, codec: str, sound: Audio | None) -> None:
    """With any codec and any sound: a fragment is on disk as soon as the first frame after it was written."""
    path, film = tmp_path / "film.mp4", gliding(60)
    with VideoWriter(path, width=SIZE, height=SIZE, codec=codec, audio=sound) as writer:
        assert len(read_video(path)) == 0
        for written in range(1, 61):
            writer.write(film[written - 1 : written])
            assert sum(frames for _, frames in fragments(path.read_bytes())) >= written - 24 * FRAGMENT_SECONDS - 1
    assert len(read_video(path)) == 60


@pytest.mark.parametrize("codec", OFFERED)
def test_a_film_of_any_codec_cut_off_anywhere_plays_and_says_what_made_it(tmp_path: Path, codec: str) -> None:
    """Sound and metadata take nothing from a torn film: every whole fragment plays, and the workflow is there."""
    path, torn = tmp_path / "film.mp4", tmp_path / "torn.mp4"
    sound = tone(9.0, 48_000, 2)
    with VideoWriter(path, width=SIZE, height=SIZE, codec=codec, audio=sound, metadata=WORKFLOW) as writer:
        writer.write(gliding(60))
    data, whole = path.read_bytes(), read_video(path)
    header = data.index(b"moof") - 4
    last = fragments(data)[-2][0]
    cuts = torch.randint(header, len(data), (12,), generator=torch.Generator().manual_seed(0)).tolist()
    for length in [header, *cuts, last, last + 3, last + 50]:
        torn.write_bytes(data[:length])
        expected = sum(frames for _, frames in fragments(data[:length]))
        played = read_video(torn)
        assert len(played) >= expected
        assert torch.equal(played[:expected], whole[:expected])
    for length in [header, *(end for end, _ in fragments(data)), last - 9]:
        torn.write_bytes(data[:length])
        with av.open(str(torn)) as container:
            assert container.metadata.items() >= WORKFLOW.items()


@pytest.mark.parametrize("fps", [24, 60])
@pytest.mark.parametrize(
    ("seconds", "rate", "channels"), [(1.0, 48_000, 1), (4.0, 44_100, 2), (4.0, 16_000, 1), (1.2, 10_000, 2)]
)
def test_sound_is_in_time_and_ends_with_the_film(
    tmp_path: Path, seconds: float, rate: int, channels: int, fps: int
) -> None:
    """A tone is heard where it was put, to 1 ms, and the sound lasts min(film, audio), to one AAC frame."""
    path = tmp_path / "film.mp4"
    with VideoWriter(path, width=SIZE, height=SIZE, fps=fps, audio=tone(seconds, rate, channels)) as writer:
        for piece in gliding(2 * fps).split(7):
            writer.write(piece)
    heard, heard_rate = hear(path)
    assert len(heard) == channels
    assert heard.shape[1] / heard_rate == pytest.approx(min(2, seconds), abs=1024 / heard_rate)
    for channel in heard:
        assert int((channel.abs() > 0.2).nonzero()[0]) / heard_rate == pytest.approx(0.5, abs=0.001)
    with av.open(str(path)) as container:
        starts = [stream.start_time for stream in container.streams]
    assert starts == [0, 0]
    assert len(read_video(path)) == 2 * fps


def test_no_sound_is_no_error(tmp_path: Path) -> None:
    """Audio of no samples makes a film that plays, and so does a film of no frames, silent."""
    for name, frames, samples in (("mute", 30, 0), ("empty", 0, 48_000)):
        sound = Audio(torch.zeros(1, samples), 48_000)
        with VideoWriter(tmp_path / name, width=SIZE, height=SIZE, audio=sound) as writer:
            writer.write(gliding(frames))
        assert len(read_video(tmp_path / name)) == frames
        assert hear(tmp_path / name)[0].shape == (1, 0)


@pytest.mark.parametrize(
    ("waveform", "rate", "told"),
    [
        (torch.zeros(6, 100), 48_000, r"\[6, 100\]; a film takes float32 \[1 or 2 channels"),
        (torch.zeros(100), 48_000, r"\[100\]; a film takes"),
        (torch.zeros(1, 100, dtype=torch.float64), 48_000, "float64"),
        (torch.full((1, 9), math.nan), 48_000, "NaN"),
        (torch.zeros(1, 100), 0, "rate 0 must be positive"),
    ],
)
def test_sound_of_another_kind_is_refused(waveform: Tensor, rate: int, told: str) -> None:
    """What AAC in mp4 cannot take is an error before there is a film."""
    with pytest.raises(ValueError, match=told):
        Audio(waveform, rate)


def test_metadata_are_in_the_file_from_the_header_on(tmp_path: Path) -> None:
    """Text of any script comes back letter by letter, while the film is made and after."""
    path = tmp_path / "film.mp4"
    with VideoWriter(path, width=SIZE, height=SIZE, metadata=WORKFLOW) as writer:
        with av.open(str(path)) as container:
            assert container.metadata.items() >= WORKFLOW.items()
        writer.write(gliding(8))
    with av.open(str(path)) as container:
        assert container.metadata.items() >= WORKFLOW.items()


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
    crf = QUALITIES["small"][codec]
    with VideoWriter(tmp_path / "crf", width=SIZE, height=SIZE, codec=codec, quality="best", crf=crf) as writer:
        writer.write(film)
    assert (tmp_path / "crf").read_bytes() == (tmp_path / "small").read_bytes()


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"codec": "divx"}, "'divx' is unknown; choose one of " + ", ".join(OFFERED)),
        ({"quality": "superb"}, "'superb' is unknown; choose one of best, high, medium, small"),
        ({"crf": 52}, r"crf 52 is off the scale of h264; choose 0 \(best\) to 51"),
    ],
)
def test_a_wrong_choice_names_the_right_ones_before_a_file_is_made(
    tmp_path: Path, choice: dict[str, str | int], told: str
) -> None:
    """Who mistypes a codec, quality or crf is told what there is, and keeps the file that was there."""
    with pytest.raises(ValueError, match=told):
        VideoWriter(tmp_path / "film.mp4", width=SIZE, height=SIZE, **choice)
    assert not (tmp_path / "film.mp4").exists()


def test_a_codec_that_av_lacks_is_told_with_the_ones_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of av without an encoder says which one is missing and what else would do."""
    monkeypatch.setattr(av, "codecs_available", {"libx264", "libaom-av1"})
    with pytest.raises(ValueError, match=r"'h265' needs libx265, which this av lacks; choose one of h264, av1"):
        VideoWriter(tmp_path / "film.mp4", width=SIZE, height=SIZE, codec="h265")


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
