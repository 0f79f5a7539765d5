"""What the routes of takes change, from the body of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, cast, get_args

from ...longlive_core.script import ShotScript
from ...longlive_core.script.block_plan import DEFAULT_SECONDS
from ...longlive_core.script.from_plan import with_lengths
from ...longlive_core.take import Take, choose, lock_shot, preview_changes, prune
from ...longlive_core.take.candidates import Candidates
from ...longlive_core.take.changes import Changes
from ...longlive_core.take.remove import remove
from ...longlive_core.take.retake import Mode, retake
from ...longlive_core.take.settings import Setting, with_unrecorded
from ...longlive_core.take.sources import load_sources
from ...longlive_core.take.storyboard import accept
from ..cast_files import read_script, recorded_cast
from ..take_json import changes_json
from .script import wired_cast

Change = Callable[[Take, Mapping[str, Any]], dict[str, Any]]
"""Changes a take that is locked, on disk, and returns the answer. Raises ValueError and OSError."""
MAX_SETTING = 10_000


def preview(take: Take, body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a script would change. Raises ValueError."""
    return changes_json(preview_changes(take, *_film(take, body)))


def preview_newest(folders: Iterable[Path], body: Mapping[str, Any]) -> tuple[Take | None, dict[str, Any]]:
    """Returns the take that a run would go on in, and what it would change there.

    folders: of the takes of a film, newest first. If no take has anything of the film, it is the newest one. Raises
    ValueError, also for a script that changes a locked shot.
    """
    found, changes, newest = Candidates(), dict[Path, Changes](), list[Take]()
    for folder in folders:
        try:
            take = Take.load(folder)
        except (OSError, ValueError):
            continue  # of another version of LongLive, or being removed
        newest.append(take)
        if (seen := found.add(take, *_film(take, body))) is not None:
            changes[folder] = seen
    best = next((take for take in found.same_film), None)
    if best is None and found.locked is not None:
        raise found.locked
    best = best or found.most_shared or next(iter(newest), None)
    if best is None or best.folder not in changes:
        return best, {}
    return best, changes_json(changes[best.folder])


def _film(take: Take, body: Mapping[str, Any]) -> tuple[ShotScript, dict[str, Setting]]:
    """The script and the settings of a body, for a film that is compared with a take. Raises ValueError."""
    text, seconds, settings = body.get("script"), body.get("default_seconds", DEFAULT_SECONDS), body.get("settings", {})
    if not isinstance(text, str) or not _is_number(seconds) or not isinstance(settings, dict):
        raise ValueError("script must be a string, default_seconds a number and settings an object")
    known = with_unrecorded(take.settings)
    for name, value in settings.items():
        if name not in known or not _is_setting(value):
            raise ValueError(f"settings has {name[:40]!r}, which is no setting of this take or has no valid value")
    script = read_script(text, wired_cast(body))
    fps = settings.get("fps", take.settings["fps"])
    if not _is_number(fps):
        raise ValueError("fps must be a number")
    if seconds != DEFAULT_SECONDS:
        script = with_lengths(script, script.plan(float(fps), take.plan.block_frames, float(seconds)))
    sources, made_from = body.get("sources"), load_sources(take.folder)
    others: dict[str, Setting] = {}
    if sources is not None and made_from is not None and sources != made_from:
        others["weights"] = None  # not known, but other than those of the take
    if (cast := recorded_cast(script)) != known["cast"]:
        others["cast"] = cast  # a setting that is given, even the same one, may take another pace
    return script, {**settings, **others}


def _choose(take: Take, body: Mapping[str, Any]) -> dict[str, Any]:
    changed, notes = choose(take, _integer(body, "shot"), _integer(body, "version"))
    changed.save()
    return {"notes": list(notes)}


def _lock(take: Take, body: Mapping[str, Any]) -> dict[str, Any]:
    locked = body.get("locked")
    if not isinstance(locked, bool):
        raise ValueError("locked must be true or false")
    lock_shot(take, _integer(body, "shot"), locked).save()
    return {"notes": []}


def _retake(take: Take, body: Mapping[str, Any]) -> dict[str, Any]:
    number, prompt, mode = _integer(body, "shot"), body.get("prompt"), body.get("mode", "ripple")
    seed = None if body.get("seed") is None else _integer(body, "seed")
    if mode not in get_args(Mode) or not isinstance(prompt, str | None):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, and prompt a string")
    fresh = seed is None and not (prompt or "").strip()
    changed = retake(take, number, seed, prompt or None, cast(Mode, mode), reuse=not fresh)
    if changed.take != take:
        changed.take.save()
    return {"notes": [], "version": changed.version}


def _accept(take: Take, body: Mapping[str, Any]) -> dict[str, Any]:
    accepted, number = body.get("accepted"), None if body.get("shot") is None else _integer(body, "shot")
    if not isinstance(accepted, bool):
        raise ValueError("accepted must be true or false")
    accept(take, number, accepted).save()
    return {"notes": []}


def _prune(take: Take, body: Mapping[str, Any]) -> dict[str, Any]:
    memory = body.get("memory", False)
    if not isinstance(memory, bool):
        raise ValueError("memory must be true or false")
    return {"notes": [], "freed": prune(take, memory)}


def _delete(take: Take, body: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    return {"removed": True, "freed": remove(take)}


CHANGES: Mapping[str, tuple[Change, str]] = {
    "choose": (_choose, '{"shot": 1, "version": 0}'),
    "lock": (_lock, '{"shot": 1, "locked": true}'),
    "accept": (_accept, '{"shot": 1, "accepted": true}'),
    "retake": (_retake, '{"shot": 1, "seed": 9}'),
    "prune": (_prune, "{}"),
    "delete": (_delete, "{}"),
}
"""The changes by the last part of their address, each with an example of its body."""


def _integer(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def _is_setting(value: Setting | object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_SETTING
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and isfinite(value))
