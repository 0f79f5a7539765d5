"""The videos of a data set of one's own and their captions: a folder, a JSONL file, or one video."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..script import ScriptError, ShotScript
from ..script.block_plan import DEFAULT_SECONDS, Grid, requested_shots
from ..script.header import parse_header
from ..script.recall import resolve
from ..script.source import Line, read_text
from ..types import BLOCK_FRAMES, FPS

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif", ".webp")
# Keys of a line of JSONL: musubi-tuner's, then those of the Hugging Face hub's metadata.jsonl.
VIDEO_KEYS, CAPTION_KEYS = ("video_path", "file_name"), ("caption", "text")
FORMS = (
    'give a folder of videos with captions of the same names (fox.mp4, fox.txt), a JSONL file of {"video_path": '
    '"fox.mp4", "caption": "a red fox"}, or a video with its caption or shot script beside it'
)
LISTED = 3  # names in a message


@dataclass(frozen=True, slots=True)
class ClipShot:
    """A shot of a video: its prompt, and where it begins and ends in video frames at 24 fps.

    end: None is the end of the video. cut: whether it begins with a cut, as the first shot of a video does not.
    """

    prompt: str
    start: int = 0
    end: int | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class ClipFile:
    """A video and its shots; a plain caption is one shot."""

    path: Path
    shots: tuple[ClipShot, ...]


def read_clip_files(data: Path) -> tuple[ClipFile, ...]:
    """Reads the captions of a data set; no video is opened.

    data: a folder of videos, each with a .txt of its name; a JSONL file of video paths, which start at that file, and
    captions; or one video with a .txt of its name. A caption with headers of shots is a shot script.

    Raises FileNotFoundError, and ValueError that names the files for a data set without videos, for missing or empty
    captions, for videos of one name, and for a faulty script.
    """
    if not data.exists():
        raise FileNotFoundError(f"{data} does not exist; {FORMS}")
    if data.is_dir():
        return tuple(_beside(path) for path in _videos(data))
    if data.suffix.lower() in VIDEOS:
        _check_captions(data.parent, [data])
        return (_beside(data),)
    if data.suffix.lower() == ".jsonl":
        return tuple(_lines(data))
    raise ValueError(f"{data} is no data set; {FORMS}")


def read_shots(text: str, name: str) -> tuple[ClipShot, ...]:
    """Reads a caption, which is one shot, or a shot script, whose lengths are times of the video.

    name: for messages. Only the last shot of a script may lack a length: it lasts to the end of the video. Raises
    ValueError for a text without words and for a faulty script.
    """
    if not any(sign.isalnum() for sign in text):
        raise ValueError(f"{name} has no words: describe what the video shows")
    try:
        if not any(parse_header(Line(line.strip(), number)) for number, line in enumerate(text.splitlines(), 1)):
            return (ClipShot(" ".join(text.split())),)
        return _script_shots(ShotScript.parse(text), name)
    except ScriptError as error:
        raise ValueError(f"{name}: {error}") from error


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _script_shots(script: ShotScript, name: str) -> tuple[ClipShot, ...]:
    if any(recalled for recalled in resolve(script.shots, auto=script.auto_recall)):
        raise ValueError(
            f"{name} recalls shots (@recall, recall: auto), which training does not: leave these words out"
        )
    grid, shots = Grid(Fraction(FPS), BLOCK_FRAMES), list[ClipShot]()
    for shot in requested_shots(script.shots, grid, [], Fraction(DEFAULT_SECONDS)):
        last = shot.number == len(script.shots)
        if shot.unspecified and not last:
            raise ValueError(
                f"{name}: shot {shot.number} has no length; only the last shot may last to the end of the video: write "
                f"'Shot {shot.number} (4s): …'"
            )
        end = None if shot.unspecified else round(shot.end)
        cut = shot.number > 1 and not shot.shot.continues
        shots.append(ClipShot(shot.shot.prompt, round(shot.start), end, cut))
    return tuple(shots)


def _videos(folder: Path) -> list[Path]:
    """The videos of a folder in the order of their names, each with a caption of its own."""
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS and path.is_file())
    if not videos:
        raise ValueError(f"{folder} has no videos ({', '.join(VIDEOS)}); {FORMS}")
    _check_captions(folder, videos)
    return videos


def _check_captions(folder: Path, videos: Sequence[Path]) -> None:
    by_stem: dict[str, Path] = {}
    for video in videos:
        if (other := by_stem.setdefault(video.stem, video)) != video:
            raise ValueError(
                f"{folder}: {other.name} and {video.name} have the same name, and {video.stem}.txt cannot be the "
                "caption of both; rename one of them"
            )
    missing = [video.name for video in videos if not video.with_suffix(".txt").is_file()]
    if missing:
        raise ValueError(
            f"{folder}: no caption for {listed(missing)}; write what it shows into "
            f"{Path(missing[0]).stem}.txt beside it, or move the video away"
        )


def _beside(video: Path) -> ClipFile:
    caption = video.with_suffix(".txt")
    return ClipFile(video, read_shots(_text(caption), str(caption)))


def _text(path: Path) -> str:
    """The text of a file. Raises ValueError if it is empty or not UTF-8."""
    try:
        return read_text(path).removeprefix("\ufeff")
    except ScriptError as error:
        raise ValueError(f"{path}: {error}") from error


def _lines(data: Path) -> Iterator[ClipFile]:
    """The clips of a JSONL file."""
    seen: dict[Path, int] = {}
    for number, line in enumerate(_text(data).splitlines(), 1):
        if not line.strip():
            continue
        name = f"{data}, line {number}"
        video, caption = _row(line, name)
        path = data.parent / video
        if not path.is_file():
            raise FileNotFoundError(f"{name}: {path} does not exist; paths start at the folder of {data.name}")
        if (before := seen.setdefault(path.resolve(), number)) != number:
            raise ValueError(f"{name}: {video} is on line {before} already; keep one of the two")
        yield ClipFile(path, read_shots(caption, f"{name}, the caption"))
    if not seen:
        raise ValueError(f"{data} has no videos; {FORMS}")


def _row(line: str, name: str) -> tuple[str, str]:
    """Video and caption of a line of JSONL."""
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON ({error}); {FORMS}") from error
    found: list[str] = []
    for keys in (VIDEO_KEYS, CAPTION_KEYS):
        values = [row[key] for key in keys if key in row] if isinstance(row, dict) else []
        if not values or not isinstance(values[0], str):
            raise ValueError(f"{name} has no text '{keys[0]}' (or '{keys[1]}'); {FORMS}")
        found.append(values[0])
    return found[0], found[1]
