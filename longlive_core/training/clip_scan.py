"""The videos of a data set: which of them can be read, and the training clips that they give."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..types import FPS
from ..units import MB, plural
from ..video.clip import Clip
from ..video.clip_sound import sound_notes
from .clip_files import ClipFile, listed
from .clip_layout import Layout, bucket, lay_out


@dataclass(frozen=True, slots=True)
class ScannedVideo:
    """A video that can be read: its training clips, and the (height, width) in pixels that they are encoded at.

    digest: of the file's content.
    """

    path: Path
    digest: str
    frames: int
    clips: tuple[Layout, ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scan:
    """The videos of a data set that can be trained on. notes: what is left out or changed, and counts."""

    videos: tuple[ScannedVideo, ...]
    notes: tuple[str, ...]

    @property
    def clips(self) -> int:
        """Number of training clips."""
        return sum(len(video.clips) for video in self.videos)


def scan_videos(
    files: Sequence[ClipFile],
    area: int,
    blocks: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scan:
    """Opens each video and lays out its training clips, of at most `blocks` blocks and about `area` pixels a frame.

    A video that cannot be read, or is shorter than a block, is skipped with a note. Raises ValueError if none is left
    or a script does not fit its video, and ClipStopped.
    """
    videos: list[ScannedVideo] = []
    skipped: list[str] = []
    changes = defaultdict[str, list[str]](list)  # names of the videos of each change
    for file in files:
        try:
            clip = Clip(file.path, FPS, should_stop)
            height, width = next(clip.pieces()).shape[1:3]
        except (OSError, ValueError) as error:
            skipped.append(f"skipped: {error}")
            continue
        try:
            layouts = lay_out(file.shots, clip.frames, blocks)
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error
        if not layouts:
            skipped.append(
                f"skipped: {file.path} has {plural(clip.frames, 'frame')} at {FPS} fps, and no shot of a block (29)"
            )
            continue
        size = bucket(height, width, area)
        videos.append(ScannedVideo(file.path, _file_digest(file.path), clip.frames, layouts, size))
        for note in clip.notes:
            if note not in sound_notes(file.path):
                changes[note].append(file.path.name)
    if not videos:
        raise ValueError(f"no video can be trained on; {'; '.join(skipped)}")
    changed = [f"{listed(names)}: {note}" for note, names in changes.items()]
    return Scan(tuple(videos), (*changed, *skipped, *_counts(videos, len(files))))


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(16 * MB):
            digest.update(part)
    return digest.hexdigest()


def _counts(videos: Sequence[ScannedVideo], files: int) -> Iterator[str]:
    clips = sum(len(video.clips) for video in videos)
    used = sum(block.frames for video in videos for layout in video.clips for block in layout)
    left = sum(video.frames for video in videos) - used
    sizes = sorted({video.size for video in videos})
    yield (
        f"{len(videos)} of {plural(files, 'video')}: {plural(clips, 'clip')}, {used / FPS:.1f} s, at "
        f"{', '.join(f'{height}x{width}' for height, width in sizes)}"
        + (f"; {plural(left, 'frame')} that make no whole block are left out" if left else "")
    )
