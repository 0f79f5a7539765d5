"""The edit of a take as an OpenTimelineIO file: a clip for each shot, its versions as media references."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import opentimelineio as otio
import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import RenderSettings
from longlive.longlive_core.render.timeline import timeline_of
from longlive.longlive_core.render.versions_job import VersionsJob
from longlive.longlive_core.take import Take, choose, lock_shot
from longlive.longlive_core.video import Audio, VideoWriter

from ..takes import make_settings, make_take

pytestmark = pytest.mark.slow


@pytest.fixture
def take(mini: Mini, tmp_path: Path) -> Take:
    """A film of five shots, the second of which has three versions."""
    take = make_take(mini, make_settings(tmp_path))
    assert VersionsJob(RenderSettings.resumed(take.folder), 2, 2, mini=mini).run()
    return Take.load(take.folder)


def exported(take: Take, *arguments: str | Path) -> otio.schema.Timeline:
    """The timeline that the command writes, as an editing program reads it."""
    path = take.folder.parent / "edit.otio"
    assert main(["takes", "export", str(take.folder), "--otio", str(path), *map(str, arguments)]) == 0
    timeline = otio.adapters.read_from_file(str(path))
    assert isinstance(timeline, otio.schema.Timeline)
    return timeline


def test_every_shot_is_a_clip_at_its_place_in_the_film(take: Take) -> None:
    """The clips follow each other without gaps, in frames of the film's file, which is named beside the timeline."""
    timeline = exported(take)
    (track,) = timeline.tracks
    clips = list(track)
    assert (timeline.name, track.kind) == ("film", "Video")
    assert [clip.name for clip in clips] == [f"Shot {number}" for number in range(1, 6)]
    ranges = [clip.source_range for clip in clips]
    assert [(one.start_time.value, one.duration.value) for one in ranges] == [
        (0, 61),
        (61, 32),
        (93, 32),
        (125, 32),
        (157, 32),
    ]
    assert all(clip.trimmed_range() == track.range_of_child(clip) for clip in clips)
    assert {one.duration.rate for one in ranges} == {24.0}
    for clip in clips:
        media = clip.media_reference
        assert (media.target_url, media.available_range.duration.value) == ("film.mp4", take.plan.video_frames)
    assert timeline.metadata["longlive"]["script"] == take.script.format()


def test_versions_are_media_references(take: Take) -> None:
    """The chosen one is active and has the film; the others say what they are, at the same place."""
    timeline = exported(take)
    clip = timeline.tracks[0][1]
    references = clip.media_references()
    assert set(references) == {"DEFAULT_MEDIA", "version 1", "version 2"}
    assert clip.active_media_reference_key == "DEFAULT_MEDIA"
    other = references["version 2"]
    assert other.is_missing_reference and other.available_range == clip.source_range
    facts = dict(other.metadata["longlive"])
    assert (facts["version"], facts["seed"], facts["complete"]) == (2, 2, True) and facts["text"] == "the other"
    assert other.name == "version 2, seed 2" and references["DEFAULT_MEDIA"].name == "version 0"


def test_the_film_is_named_from_the_timelines_folder(take: Take, tmp_path: Path) -> None:
    """Relative paths, with signs that addresses do not have encoded."""
    film = tmp_path / "my films" / "a film.mp4"
    film.parent.mkdir()
    os.replace(take.film, film)
    timeline = exported(take, "--film", film)  # its parts end with it
    media = timeline.tracks[0][0].media_reference
    assert media.target_url == "my%20films/a%20film.mp4"


def test_a_film_that_is_not_the_take_is_refused(take: Take, capsys: pytest.CaptureFixture[str]) -> None:
    """A version that was chosen since, a film cut off, none at all, and a name that no program would open."""
    chosen, _ = choose(take, 2, 2)
    with pytest.raises(ValueError, match=r"film\.mp4 has another version of shot 2 than the take; make the film first"):
        timeline_of(chosen, take.film)
    longer = take.with_shot(0, take.shots[0])
    assert timeline_of(lock_shot(longer, 1, True), take.film)
    data = take.film.read_bytes()
    take.film.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"film\.mp4 has \d+ of 189 frames; make the film first"):
        timeline_of(take, take.film)
    take.film.unlink()
    assert main(["takes", "export", str(take.folder)]) == 2 and "film.mp4" in capsys.readouterr().err
    assert main(["takes", "export", str(take.folder), "--otio", "film.xml"]) == 2
    assert "film.xml does not end with .otio" in capsys.readouterr().err


def test_sound_has_a_track_of_its_own(take: Take) -> None:
    """With the same clips, so that an edit moves picture and sound together."""
    audio = Audio(torch.zeros(2, 48000 * 8), 48000)
    with VideoWriter(take.film, width=32, height=32, audio=audio) as writer:
        writer.write(torch.zeros(take.plan.video_frames, 32, 32, 3, dtype=torch.uint8))
    timeline = otio.adapters.read_from_string(timeline_of(take, take.film))
    assert [track.kind for track in timeline.tracks] == ["Video", "Audio"]
    assert [clip.name for clip in timeline.tracks[1]] == [clip.name for clip in timeline.tracks[0]]


def test_without_the_package_the_error_says_what_to_install(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTimelineIO is optional."""
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(ValueError, match=r"pip install opentimelineio .*longlive-video\[otio\]"):
        timeline_of(take, take.film)
