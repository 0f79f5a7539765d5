"""What the canvas is told of takes, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..longlive_core.take import Take
from ..longlive_core.take.changes import Changes
from ..longlive_core.take.pace import load_pace
from ..longlive_core.take.take import FILE, FILM_FILE, GIVEN_VIDEO, WORKFLOW, bytes_in
from ..longlive_core.types import BlockSpec
from ..longlive_core.units import percent_encoded
from .kept_take import FOLDER

PATH = "/longlive/takes"
TITLE_CHARACTERS = 60


class TakeView:
    """One take as JSON. name: in the output folder. output: that folder."""

    def __init__(self, name: str, take: Take, output: Path, *, making: bool = False) -> None:
        self.name, self.take, self.making = name, take, making
        self._output, self._plan = output, take.plan
        self.auto = name.startswith(f"{FOLDER}/")
        self.bytes = bytes_in(take.folder)

    def summary(self, *, removable: bool = False) -> dict[str, Any]:
        """What a list of takes shows."""
        plan, folder = self._plan, self.take.folder
        made = sum(self.take.path(spec).is_file() for spec in plan.blocks)
        stills = (self._still(index, shot.chosen) for index, shot in enumerate(self.take.shots))
        return {
            "name": self.name,
            "title": _title(self.take),
            "bytes": self.bytes,
            "seconds": round(plan.seconds, 3),
            "shots": plan.shots,
            "blocks": len(plan.blocks),
            "made": made,
            "complete": made == len(plan.blocks),
            "modified": _modified(folder),
            "still": next((still for still in stills if still is not None), None),
            "auto": self.auto,
            "removable": removable,
            "making": self.making,
            "pace": load_pace(folder),
            "workflow": (folder / WORKFLOW).is_file(),
        }

    def details(self, *, removable: bool = False) -> dict[str, Any]:
        """The summary with shots and versions, script and film file."""
        height, _, width = str(self.take.settings.get("size") or "").partition("x")
        return {
            **self.summary(removable=removable),
            "script": self.take.script.format(),
            "fps": self._plan.fps,
            "width": int(width) if width.isdigit() else None,
            "height": int(height) if height.isdigit() else None,
            "film": self._film(),
            "shots": list(self._shots()),
        }

    def _shots(self) -> Iterator[dict[str, Any]]:
        for index, (shot, specs) in enumerate(zip(self.take.shots, self._plan.blocks_of_shots, strict=True)):
            start, end = specs[0].video_start, specs[-1].video_start + specs[-1].video_frames
            yield {
                "shot": index + 1,
                "first": specs[0].index,
                "blocks": len(specs),
                "start": round(start / self._plan.fps, 3),
                "seconds": round((end - start) / self._plan.fps, 3),
                "chosen": shot.chosen,
                "locked": shot.locked,
                "spliced": shot.spliced,
                "given": shot.versions[shot.chosen].made == GIVEN_VIDEO,
                "versions": [self._version(index, version, specs) for version in range(len(shot.versions))],
            }

    def _version(self, shot: int, number: int, specs: list[BlockSpec]) -> dict[str, Any]:
        version = self.take.shots[shot].versions[number]
        return {
            "version": number,
            "text": version.text,
            "seed": version.seed,
            "made": version.made,
            "accepted": self.take.shots[shot].accepted == number,
            "blocks": sum(self.take.path(spec, number).is_file() for spec in specs),
            "bytes": bytes_in(self.take.shot_folder(shot, number)),
            "still": self._still(shot, number),
        }

    def _still(self, shot: int, version: int) -> str | None:
        """The address of a still, which changes with the picture."""
        try:
            time = self.take.still(shot, version).stat().st_mtime_ns
        except OSError:
            return None
        return f"{PATH}/{percent_encoded(self.name)}/shots/{shot + 1}/versions/{version}/still?t={time // 10**6}"

    @property
    def film(self) -> Path | None:
        """The film's file, if it is in the output folder."""
        try:
            film = json.loads((self.take.folder / FILM_FILE).read_text("utf-8"))
            path = self._output / str(film["subfolder"]) / str(film["filename"])
        except (OSError, ValueError, KeyError, TypeError):
            path = self.take.film
        path = path.resolve()
        return path if path.is_file() and path.is_relative_to(self._output) else None

    def _film(self) -> dict[str, str] | None:
        """The film's file as the host's /view takes it."""
        path = self.film
        if path is None:
            return None
        subfolder = path.parent.relative_to(self._output).as_posix()
        return {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": "output"}


def removable(views: Iterable[TakeView], limit: int) -> set[str]:
    """Names of the takes that are offered for removal: the oldest that saved themselves, until `limit` bytes are left.

    A take with a locked shot, and one that is being made, stays.
    """
    auto = sorted((view for view in views if view.auto), key=lambda view: _modified(view.take.folder))
    size, names = sum(view.bytes for view in auto), set[str]()
    for view in auto:
        if size > limit and not view.making and not any(shot.locked for shot in view.take.shots):
            names.add(view.name)
            size -= view.bytes
    return names


def changes_json(changes: Changes) -> dict[str, Any]:
    """What a script will change in a take."""
    return {
        "line": changes.line(),
        "another_film": changes.another_film,
        "kept": changes.count("kept"),
        "remade": changes.count("remade"),
        "new": changes.count("new"),
        "seconds": changes.seconds,
        "shots": [
            {
                "shot": shot.shot + 1,
                "state": shot.state,
                "first": shot.first,
                "blocks": list(shot.blocks),
                "version": shot.version,
                "source": None if shot.source is None else shot.source + 1,
                "board": shot.board,
            }
            for shot in changes.shots
        ],
    }


def _title(take: Take) -> str:
    """The beginning of the first shot's prompt."""
    text = take.script.shots[0].prompt
    return text if len(text) <= TITLE_CHARACTERS else f"{text[: TITLE_CHARACTERS - 1].rsplit(' ', 1)[0]}…"


def _modified(folder: Path) -> float:
    """When the take was edited or its film made last, in seconds since 1970."""
    times = [path.stat().st_mtime for path in (folder / FILE, folder / FILM_FILE) if path.is_file()]
    return max(times, default=0.0)
