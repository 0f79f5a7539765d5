"""HTTP routes that read and edit a script, for pages that show it as a strip of shots.

    POST /longlive/script        {"script", "fps", "default_seconds", "cast"} -> {"outline"} or {"error"}
    POST /longlive/script/edit   the same and "edit" -> {"script", "selected", "notes", "outline"}
                                 or {"error"}

cast: the cast files that are wired to the node of the script, `[[file, name], …]` with "" for the name that a file has.
The outline has the fields of `Outline`. An error in the script, or of an edit, is an answer like any other:
{"what", "line", "column", "remedy", "fix"}. A fix is {"line", "column", "end", "text"}, or null. An edit is
`{"kind": "move", "shot": 3, "to": 1}`, see `longlive_core/script/edits.py`. Nothing is stored and nothing is run.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web
from server import PromptServer

from ...longlive_core.script import ScriptError
from ...longlive_core.script.block_plan import DEFAULT_SECONDS
from ...longlive_core.script.cast import CastEntry
from ...longlive_core.script.edit import edit_script
from ...longlive_core.script.edits import read_edit
from ...longlive_core.script.outline import outline
from ...longlive_core.types import FPS
from ..cast_files import entry_of, name_in_file, read_script
from .requests import json_body, refuse

PATH = "/longlive/script"
# A script of 1,000 shots of 1,000 characters, escaped as JSON.
MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_CAST = 100
EXAMPLE = '{"script": "…", "fps": 24, "default_seconds": 4}'


def add_script(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    server.routes.post(PATH)(_read)
    server.routes.post(f"{PATH}/edit")(_edit)


async def _read(request: web.Request) -> web.Response:
    return await _answer(request, _outline_of)


async def _edit(request: web.Request) -> web.Response:
    return await _answer(request, _edited)


async def _answer(request: web.Request, work: Callable[[Mapping[str, Any]], dict[str, Any]]) -> web.Response:
    body = await json_body(request, MAX_BODY_BYTES, EXAMPLE)
    # In a thread, because parsing a long script would block the event loop.
    return web.json_response(await asyncio.to_thread(work, body))


def _outline_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the outline of a script, or its error."""
    text, fps, default_seconds = _script(body)
    try:
        return {"outline": asdict(outline(read_script(text, wired_cast(body)), fps, default_seconds))}
    except ScriptError as error:
        return _error(error)


def _edited(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a script after an edit, or the error. Raises an HTTP error for a malformed edit."""
    text, fps, default_seconds = _script(body)
    values = body.get("edit")
    if not isinstance(values, dict):
        refuse(web.HTTPBadRequest, 'edit must be an object such as {"kind": "move", "shot": 3, "to": 1}')
    try:
        edit = read_edit(values)
    except ValueError as error:
        refuse(web.HTTPBadRequest, str(error))
    try:
        done = edit_script(text, edit, fps, default_seconds, name_in_file, wired_cast(body))
        return {
            "script": done.text,
            "selected": done.selected,
            "notes": done.notes,
            "outline": asdict(outline(done.script, fps, default_seconds)),
        }
    except ScriptError as error:
        return _error(error)


def _script(body: Mapping[str, Any]) -> tuple[str, float, float]:
    """Returns the script, the frame rate and the default length of a body. Raises an HTTP error."""
    text = body.get("script")
    fps, default_seconds = body.get("fps", FPS), body.get("default_seconds", DEFAULT_SECONDS)
    if not isinstance(text, str):
        refuse(web.HTTPBadRequest, f"the request body must be JSON such as {EXAMPLE}")
    for name, value, limits in (("fps", fps, (1, 240)), ("default_seconds", default_seconds, (0.01, 86400))):
        right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not right or not limits[0] <= value <= limits[1]:
            refuse(web.HTTPBadRequest, f"{name} must be a number from {limits[0]} to {limits[1]}")
    return text, float(fps), float(default_seconds)


def wired_cast(body: Mapping[str, Any]) -> tuple[CastEntry, ...]:
    """The wired cast files of a body. Raises ScriptError for one that is missing, and an HTTP error."""
    pairs = body.get("cast", [])
    if not isinstance(pairs, list) or len(pairs) > MAX_CAST or not all(map(_is_pair, pairs)):
        refuse(web.HTTPBadRequest, 'cast must be a list such as [["kitchen.cast.safetensors", "kitchen"]]')
    try:
        return tuple(entry_of(file, name) for file, name in pairs)
    except ValueError as error:
        raise ScriptError(str(error)) from error


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)


def _error(error: ScriptError) -> dict[str, Any]:
    fix = asdict(error.fix) if error.fix else None
    place = {"line": error.line, "column": error.column}
    return {"error": {"what": error.what, "remedy": error.remedy, "fix": fix, **place}}
