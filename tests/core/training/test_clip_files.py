"""Data sets of one's own videos: every form is read, and what cannot be trained on is named before work starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from longlive.longlive_core.training.clip_files import ClipShot, read_clip_files, read_shots
from longlive.longlive_core.training.clip_layout import ClipBlock, bucket, lay_out

SCRIPT = "Shot 1 (2s): a red fox\nShot 2 (1s) continue: it looks up\nShot 3: it sleeps\n"


def folder_of(path: Path, **captions: str) -> Path:
    """A folder of empty videos with captions; a video is opened later."""
    path.mkdir()
    for name, caption in captions.items():
        (path / f"{name}.mp4").touch()
        (path / f"{name}.txt").write_text(caption, "utf-8")
    return path


def test_a_folder_gives_the_captions_of_the_same_names(tmp_path: Path) -> None:
    """Each video has the .txt of its name, whose lines are one caption unless they are shots; other files are not
    read."""
    folder = folder_of(tmp_path / "clips", b="a red fox,\nin  snow", a="\ufeffa box: it waits", c=SCRIPT)
    (folder / "notes.md").write_text("no video")
    a, b, c = read_clip_files(folder)
    assert [file.path.name for file in (a, b, c)] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [file.shots for file in (a, b)] == [(ClipShot("a box: it waits"),), (ClipShot("a red fox, in snow"),)]
    assert c.shots == (
        ClipShot("a red fox", 0, 48),
        ClipShot("it looks up", 48, 72),
        ClipShot("it sleeps", 72, None, cut=True),
    )


def test_a_video_with_a_script_beside_it(tmp_path: Path) -> None:
    """A video is a data set of one clip."""
    folder = folder_of(tmp_path / "clips", film=SCRIPT, other="a fox")
    (file,) = read_clip_files(folder / "film.mp4")
    assert len(file.shots) == 3


@pytest.mark.parametrize(("video", "caption"), [("video_path", "caption"), ("file_name", "text")])
def test_json_lines_as_other_trainers_document_them(tmp_path: Path, video: str, caption: str) -> None:
    """musubi-tuner: {"video_path": "/path/to/video1.mp4", "caption": "A caption for video1"}; the Hugging Face hub:
    file_name and text. Relative paths start at the file; keys of other programs have no meaning here."""
    folder = folder_of(tmp_path / "clips", video1="", video2="")
    rows = [{video: str(folder / "video1.mp4"), caption: "A caption for video1"}]
    rows += [{video: "clips/video2.mp4", caption: "A caption for video2", "audio_path": "video2.wav"}]
    data = tmp_path / "metadata.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", "utf-8")
    files = read_clip_files(data)
    assert [file.path for file in files] == [folder / "video1.mp4", tmp_path / "clips" / "video2.mp4"]
    assert [file.shots for file in files] == [(ClipShot(f"A caption for video{n}"),) for n in (1, 2)]


def test_bad_folders_are_refused_by_name(tmp_path: Path) -> None:
    """No data, no videos, captions that are missing, empty or of no words, and two videos of one name."""

    def error(path: Path) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as raised:
            read_clip_files(path)
        return str(raised.value)

    assert "nothing does not exist; give a folder of videos" in error(tmp_path / "nothing")
    empty = folder_of(tmp_path / "empty")
    assert "empty has no videos (.mp4, .mov," in error(empty)
    (empty / "frame.png").touch()
    assert "has no videos" in error(empty) and "frame.png is no data set" in error(empty / "frame.png")
    missing = folder_of(tmp_path / "missing", a="a fox")
    for name in "bcdef":
        (missing / f"{name}.mp4").touch()
    assert "no caption for b.mp4, c.mp4, d.mp4 and 2 more; write what it shows into b.txt" in error(missing)
    assert "no caption for b.mp4; write" in error(missing / "b.mp4")
    for number, text in enumerate(("", " \n", "... — !")):
        assert "one.txt has no words: describe" in error(folder_of(tmp_path / f"words{number}", one=text))
    twice = folder_of(tmp_path / "twice", one="a fox")
    (twice / "one.mov").touch()
    assert "one.mov and one.mp4 have the same name" in error(twice) or "one.mp4 and one.mov have the same" in error(
        twice
    )
    (twice / "one.mov").unlink()
    (twice / "one.txt").write_bytes(b"\xff\xfe a fox")
    assert "one.txt is not a UTF-8 text file" in error(twice)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 has no text 'video_path' (or 'file_name')"),
        ('{"video_path": "a.mp4"}', "line 2 has no text 'caption' (or 'text')"),
        ('{"video_path": "a.mp4", "caption": 3}', "line 2 has no text 'caption'"),
        ('{"video_path": "a.mp4", "caption": "?"}', "line 2, the caption has no words"),
        ('{"video_path": "no.mp4", "caption": "a fox"}', "no.mp4 does not exist; paths start at the folder of"),
        ('{"video_path": "../clips/b.mp4", "caption": "a fox"}', "../clips/b.mp4 is on line 1 already"),
    ],
)
def test_bad_lines_are_refused_with_their_number(tmp_path: Path, line: str, message: str) -> None:
    """A line that is no clip ends the reading; a video that two lines name is one too many."""
    folder = folder_of(tmp_path / "clips", a="", b="")
    data = folder / "data.jsonl"
    data.write_text('{"video_path": "b.mp4", "caption": "a fox"}\n' + line + "\n", "utf-8")
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        read_clip_files(data)
    assert message in str(raised.value)
    data.write_text("\n", "utf-8")
    with pytest.raises(ValueError, match="has no videos"):
        read_clip_files(data)


def test_scripts_need_lengths() -> None:
    """Only the last shot may last to the end of the video; errors of a script have the name of its file."""
    with pytest.raises(ValueError, match=r"a\.txt: shot 1 has no length; only the last shot"):
        read_shots("Shot 1: a fox\nShot 2 (2s): it waits", "a.txt")
    with pytest.raises(ValueError, match=r"a\.txt: line 2, column \d+: unknown name {hro}"):
        read_shots("hero: a fox\nShot 1 (2s): {hro} waits", "a.txt")
    shots = read_shots("[0s-2s]: a fox\n[2s-5.5s]: it waits", "a.txt")
    assert shots == (ClipShot("a fox", 0, 48), ClipShot("it waits", 48, 132, cut=True))


def test_cuts_and_prompts_begin_with_a_block() -> None:
    """A shot gives whole blocks from its first frame on, a cut the prefix; a shot without a block is left out."""
    shots = (ClipShot("a", 0, 70), ClipShot("b", 70, 90, cut=True), ClipShot("c", 90, 125, cut=True))
    (clip,) = lay_out(shots, 125, 4)
    assert clip == (
        ClipBlock(0, 29, "a", cut=False),
        ClipBlock(29, 32, "a", cut=False),
        ClipBlock(90, 32, "The scene transitions. c", cut=True),
    )
    continued = (ClipShot("a", 0, 40), ClipShot("b", 40, None))
    assert [block.prompt for block in lay_out(continued, 93, 9)[0]] == ["a", "b", "b"]


def test_long_videos_become_several_clips() -> None:
    """Each clip is a film of its own, so its first block has 29 frames and no cut; frames are used once at most."""
    clips = lay_out((ClipShot("a"),), 200, 2)
    assert [[block.start for block in clip] for clip in clips] == [[0, 29], [61, 90], [122, 151]]
    assert [[block.frames for block in clip] for clip in clips] == [[29, 32]] * 3
    assert lay_out((ClipShot("a"),), 28, 2) == ()
    assert [len(clip) for clip in lay_out((ClipShot("a", 0, 50), ClipShot("b", 50, cut=True)), 90, 1)] == [1, 1]


def test_a_script_longer_than_its_video_is_refused() -> None:
    """Lengths may be rounded to seconds, not more."""
    assert len(lay_out((ClipShot("a", 0, 72),), 70, 4)[0]) == 2
    with pytest.raises(ValueError, match=r"goes on to 4\.00 s, but the video ends at 2\.92 s"):
        lay_out((ClipShot("a", 0, 96),), 70, 4)
    with pytest.raises(ValueError, match=r"goes on to 4\.00 s"):
        lay_out((ClipShot("a", 0, 60), ClipShot("b", 96, cut=True)), 70, 4)


@pytest.mark.parametrize(
    ("video", "area", "size"),
    [
        ((1080, 1920), 512 * 512, (384, 672)),
        ((1920, 1080), 512 * 512, (672, 384)),
        ((93, 127), 128 * 128, (96, 160)),
        ((128, 128), 128 * 128, (128, 128)),
        ((3, 1000), 128 * 128, (32, 2336)),
    ],
)
def test_sizes_keep_area_and_aspect(video: tuple[int, int], area: int, size: tuple[int, int]) -> None:
    """A bucket is a multiple of 32 on both sides, whatever the size of the video."""
    assert bucket(*video, area) == size
