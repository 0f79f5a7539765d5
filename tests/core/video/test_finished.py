"""A complete film has a duration and an index, and plays at every moment at which they are written."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import av
import pytest
import torch
from longlive.longlive_core.video import CODECS, PacketSource, VideoWriter, open_film, read_video
from longlive.longlive_core.video import fragments as fragment_files

from .films import OFFERED, SIZE, WORKFLOW, film_name, gliding, tone, whole_pieces

FRAMES = 60


def write(path: Path, codec: str) -> None:
    sound = tone(9.0, 48_000, 2)
    with VideoWriter(path, width=SIZE, height=SIZE, codec=codec, audio=sound, metadata=WORKFLOW) as writer:
        writer.write(gliding(FRAMES))


def box(data: bytes, *names: str) -> bytes:
    """The contents of a box, found by the names of the boxes around it; the last one of each name."""
    for name in names:
        at, found = 0, b""
        while at + 8 <= len(data):
            size, kind = struct.unpack(">I4s", data[at : at + 8])
            if kind == name.encode():
                found = data[at + 8 : at + size]
            at += max(8, size)
        assert found, name
        data = found
    return data


@pytest.mark.parametrize("codec", [codec for codec in OFFERED if CODECS[codec].container != "webm"])
def test_a_complete_film_has_a_duration_and_an_index(tmp_path: Path, codec: str) -> None:
    """Header, tracks and tables of samples say how long an mp4 or mov is, as in one that never was in fragments."""
    path = tmp_path / film_name(codec)
    write(path, codec)
    movie = box(path.read_bytes(), "moov")
    scale, duration = struct.unpack(">II", box(movie, "mvhd")[12:20])
    assert duration / scale == pytest.approx(FRAMES / 24, abs=0.05)
    assert struct.unpack(">I", box(movie, "trak", "tkhd")[20:24])[0] > 0
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(FRAMES / 24, abs=0.05)
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.frames == FRAMES and video.average_rate == 24
        assert len(video.index_entries) == FRAMES and sound.frames > 50
        assert container.metadata.items() >= WORKFLOW.items()
        container.seek(1_500_000)
        assert next(container.decode(video)).time == pytest.approx(0, abs=1.5)
    assert len(read_video(path)) == FRAMES == PacketSource(path).frames


@pytest.mark.parametrize("codec", [codec for codec in OFFERED if CODECS[codec].container != "webm"])
def test_metadata_can_change_until_the_film_ends(tmp_path: Path, codec: str) -> None:
    """A value may become longer; other keys, sound and pictures stay, and the index still fits them."""
    path, plain, longer = tmp_path / film_name(codec), tmp_path / f"plain_{film_name(codec)}", "ü" * 5000
    write(plain, codec)
    sound, (key, *others) = tone(9.0, 48_000, 2), WORKFLOW
    with VideoWriter(path, width=SIZE, height=SIZE, codec=codec, audio=sound, metadata=WORKFLOW) as writer:
        writer.write(gliding(FRAMES))
        assert writer.change_metadata({key: longer, "unknown": "x"})
    with av.open(str(path)) as container:
        assert container.metadata[key] == longer and "unknown" not in container.metadata
        assert all(container.metadata[other] == WORKFLOW[other] for other in others)
        assert len(container.streams.video[0].index_entries) == FRAMES
        container.seek(1_500_000)
        assert next(container.decode(video=0)).time == pytest.approx(0, abs=1.5)
    assert torch.equal(read_video(path), read_video(plain))


def test_metadata_of_a_webm_stay(tmp_path: Path) -> None:
    """They are in front of the film, and the writer says that it cannot change them."""
    path = tmp_path / "film.webm"
    with VideoWriter(path, width=SIZE, height=SIZE, codec="vp9", metadata=WORKFLOW) as writer:
        writer.write(gliding(4))
        assert not writer.change_metadata(dict.fromkeys(WORKFLOW, "x"))
    with av.open(str(path)) as container:
        assert container.metadata["WORKFLOW"] == WORKFLOW["workflow"]


class Recorder:
    """Records the writes of a file, in order."""

    def __init__(self, file: Any, log: list[tuple[int, bytes]]) -> None:  # noqa: ANN401
        self._file, self._log = file, log

    def write(self, data: memoryview) -> int:
        self._log.append((self._file.tell(), bytes(data)))
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._file, name)


@pytest.mark.slow
@pytest.mark.parametrize("codec", OFFERED)
def test_every_state_of_the_last_rewrite_plays(tmp_path: Path, codec: str) -> None:
    """Wherever the last writes are interrupted, between two or within one, a player shows all whole fragments."""
    path, torn, log = tmp_path / film_name(codec), tmp_path / ("torn-" + film_name(codec)), list[tuple[int, bytes]]()
    with open_film(path, width=SIZE, height=SIZE, codec=codec, audio=tone(9.0, 48_000, 2)) as writer:
        writer.write(gliding(FRAMES))
        before = path.read_bytes()
        file = cast("Any", writer)._file
        file._file = Recorder(file._file, log)
    whole = read_video(path)
    assert len(log) >= 2
    reached = sum(frames for _, frames in whole_pieces(before))
    for number, (at, data) in enumerate(log):
        # The kernel writes a few bytes within a page at once.
        cuts = {0, len(data)} if len(data) <= 16 else {0, 1, len(data) // 3, len(data) // 2, len(data) - 1, len(data)}
        if data[4:8] == b"moof":  # the header of a fragment is a few bytes too
            cuts = {cut for cut in cuts if cut == 0 or cut >= int.from_bytes(data[:4], "big")}
        for cut in sorted(cuts):
            state = bytearray(before)
            for start, piece in [*log[:number], (at, data[:cut])]:
                state[start : start + len(piece)] = piece
            torn.write_bytes(state)
            with av.open(str(torn)) as container:
                shown = sum(1 for packet in container.demux(video=0) if packet.size and not packet.is_corrupt)
            assert shown >= reached
            played = read_video(torn)
            assert len(played) >= reached
            assert torch.equal(played[:reached], whole[:reached])


# Writes a film, and its last bytes slowly, in pieces of a page's fraction; a few bytes are written at once.
CHILD = """
import sys, time
sys.path[:0] = sys.argv[3:]
import torch
from core.video.films import SIZE, gliding, tone
from longlive.longlive_core.video import open_film

class Slow:
    def __init__(self, file): self.file = file
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, data):
        time.sleep(0.002)
        return self.file.write(data[:61])

writer = open_film(sys.argv[1], width=SIZE, height=SIZE, codec=sys.argv[2], audio=tone(9.0, 48_000, 2))
writer.write(gliding(60))
writer._file._file = Slow(writer._file._file)
print("closing", flush=True)
writer.close()
print("closed", flush=True)
time.sleep(60)
"""


def kill_while_closing(path: Path, codec: str, seconds: float) -> tuple[bytes, bool]:
    """Kills a process `seconds` after it begins to close its film; returns the film before, and whether it closed."""
    tests, package = Path(__file__).parents[2], Path(fragment_files.__file__).parents[2]
    alias = path.parent / "alias"
    alias.mkdir(exist_ok=True)
    if not (alias / "longlive").exists():
        (alias / "longlive").symlink_to(package, target_is_directory=True)
    command = [sys.executable, "-c", CHILD, str(path), codec, str(alias), str(tests)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"closing\n"
        before = path.read_bytes()
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        closed = b"closed" in child.stdout.read()
    return before, closed


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize(("codec", "seconds"), [("h264", 0.05), ("h264", 0.4), ("vp9", 0.05), ("prores", 0.6)])
def test_a_film_killed_while_it_is_finished_plays(tmp_path: Path, codec: str, seconds: float) -> None:
    """After SIGKILL during the last rewrite a film plays to its end or to its last whole fragment."""
    path = tmp_path / film_name(codec)
    before, _ = kill_while_closing(path, codec, seconds)
    reached = sum(frames for _, frames in whole_pieces(before))
    with av.open(str(path)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size and not packet.is_corrupt) >= reached
    assert len(read_video(path)) >= reached >= FRAMES - 8
