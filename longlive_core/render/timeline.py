"""The edit of a take as an OpenTimelineIO timeline, for editing programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from ..take import Shot, Take, Version
from ..take.history import stored_blocks
from ..types import BlockSpec
from ..units import percent_encoded, plural
from ..video import PacketSource
from ..video.reader import has_sound
from .film_index import recorded_digests

NAMESPACE = "longlive"


def timeline_of(take: Take, film: Path, beside: Path | None = None) -> str:
    """Returns the text of an `.otio` file with one clip for each shot of the film, whose file is `film`.

    A clip's source range is the shot's place in the film, and its media references are the versions of the shot: that
    in the film, which is active, has the film's file; the others have no file of their own, only their text, seed and
    place. beside: the folder of the `.otio` file, to which paths are relative; None for that of the film.

    Raises ValueError if OpenTimelineIO is not installed or the film's file lacks a shot, OSError if it cannot be read.
    """
    otio = _opentimelineio()
    frames = PacketSource(film).frames
    _check_film(take, film, frames)
    edit = _Edit(otio, take, film, film.resolve().parent if beside is None else beside.resolve(), frames)
    return edit.timeline().to_json_string()


class _Edit:
    """Makes the parts of a timeline. frames: of the film's file."""

    def __init__(self, otio: ModuleType, take: Take, film: Path, beside: Path, frames: int) -> None:
        self._otio, self._take, self._film, self._beside = otio, take, film, beside
        self._rate = take.plan.fps
        self._available = self._range(0, frames)

    def timeline(self) -> Any:  # noqa: ANN401 (a type of an optional package)
        """The timeline: a track of pictures, and one of the film's sound if it has any."""
        schema = self._otio.schema
        timeline = schema.Timeline(self._film.stem, metadata=self._metadata({"script": self._take.script.format()}))
        kinds = [schema.TrackKind.Video]
        if self._film.is_file() and has_sound(self._film):
            kinds.append(schema.TrackKind.Audio)
        for kind in kinds:
            track = schema.Track(kind, kind=kind)
            for shot, specs in zip(self._take.shots, self._take.plan.blocks_of_shots, strict=True):
                track.append(self._clip(shot, specs))
            timeline.tracks.append(track)
        return timeline

    def _clip(self, shot: Shot, specs: Sequence[BlockSpec]) -> Any:  # noqa: ANN401
        number, start = specs[0].shot + 1, specs[0].video_start
        place = self._range(start, specs[-1].video_start + specs[-1].video_frames - start)
        facts = {"shot": number, "prompt": specs[-1].prompt, "locked": shot.locked, "spliced": shot.spliced}
        clip = self._otio.schema.Clip(f"Shot {number}", source_range=place, metadata=self._metadata(facts))
        # Readers that know one reference for a clip only look for this key.
        active = self._otio.schema.Clip.DEFAULT_MEDIA_KEY
        references = {active: self._film_reference(self._facts(shot, specs, shot.chosen))}
        for version in range(len(shot.versions)):
            if version != shot.chosen:
                facts = self._facts(shot, specs, version)
                missing = self._otio.schema.MissingReference(facts["name"], place, self._metadata(facts))
                references[f"version {version}"] = missing
        clip.set_media_references(references, active)
        return clip

    def _film_reference(self, facts: Mapping[str, Any]) -> Any:  # noqa: ANN401
        schema, metadata = self._otio.schema, self._metadata(facts)
        if self._film.is_file():
            reference = schema.ExternalReference(self._url(self._film), self._available, metadata)
            reference.name = facts["name"]
            return reference
        reference = schema.ImageSequenceReference(
            f"{self._url(self._film)}/",
            "",
            ".png",
            start_frame=1,
            rate=self._rate,
            frame_zero_padding=6,
            available_range=self._available,
            metadata=metadata,
        )
        reference.name = facts["name"]
        return reference

    def _facts(self, shot: Shot, specs: Sequence[BlockSpec], number: int) -> dict[str, Any]:
        """What the metadata of a media reference say of a version."""
        version, index = shot.versions[number], specs[0].shot
        made = self._take.block_count(index, number)
        return {
            "name": _name(number, version),
            "version": number,
            "text": version.text,
            "seed": version.seed,
            "made": version.made,
            "complete": made == len(specs),
        }

    def _metadata(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {NAMESPACE: {name: value for name, value in facts.items() if value is not None}}

    def _range(self, start: int, frames: int) -> Any:  # noqa: ANN401
        time = self._otio.opentime
        return time.TimeRange(time.RationalTime(start, self._rate), time.RationalTime(frames, self._rate))

    def _url(self, path: Path) -> str:
        """The path relative to the `.otio` file, or a file's address on another drive."""
        try:
            relative = PurePath(os.path.relpath(path.resolve(), self._beside)).as_posix()
        except ValueError:
            return path.resolve().as_uri()
        return percent_encoded(relative, plain="/")


def _name(number: int, version: Version) -> str:
    return f"version {number}" if version.seed is None else f"version {number}, seed {version.seed}"


def _check_film(take: Take, film: Path, frames: int) -> None:
    """Raises ValueError if the film's file does not have the film as chosen."""
    plan = take.plan
    remedy = f"make the film first: `longlive render --resume {take.folder}`, or Run in ComfyUI"
    if frames < plan.video_frames:
        raise ValueError(f"{film} has {frames} of {plural(plan.video_frames, 'frame')}; {remedy}")
    for spec, digest in zip(stored_blocks(take), recorded_digests(take, film), strict=False):
        record = take.record(spec)
        if record is not None and record.digest != digest:
            raise ValueError(f"{film} has another version of shot {spec.shot + 1} than the take; {remedy}")


def _opentimelineio() -> ModuleType:
    try:
        import opentimelineio
    except ImportError as error:
        raise ValueError(
            "a timeline needs the package OpenTimelineIO: pip install opentimelineio (0.17 or newer), or "
            'pip install "longlive-video[otio]"'
        ) from error
    return opentimelineio
