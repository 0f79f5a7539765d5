"""HTTP routes that list the films that are being made, and read and change their scripts.

    GET  /longlive/takes                 [{"id", "title", "version", "begun", "shots"}, …]
    GET  /longlive/takes/<id>/script     {"script", "version", "begun", "shots"}
    POST /longlive/takes/<id>/script     {"script", "version"} -> {"version", "begun", "shots"}

The id is that of the node that makes the film. A change is checked at once and takes effect when the next shot begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from server import PromptServer

from ...longlive_core.film.live_script import LiveScript, TooLateError
from ...longlive_core.script.source import MAX_FILE_BYTES
from .requests import json_body, refuse

PATH = "/longlive/takes"
EXAMPLE = '{"script": "…", "version": 0}'


class LiveScripts:
    """The live scripts of the films that are being made, by the id of the node that makes the film."""

    def __init__(self) -> None:
        self._films: dict[str, LiveScript] = {}

    @contextmanager
    def registered(self, films: Mapping[str, LiveScript]) -> Iterator[None]:
        """Makes the scripts available over HTTP inside the `with` block."""
        self._films.update(films)
        try:
            yield
        finally:
            for key in films:
                self._films.pop(key, None)

    async def films(self, _: web.Request) -> web.Response:
        """Lists the films."""
        return web.json_response([{"id": key, **_state(film)} for key, film in self._films.items()])

    async def script(self, request: web.Request) -> web.Response:
        """Returns the script of a film."""
        film = self._film(request)
        return web.json_response({"script": film.script.format(), **_state(film)})

    async def change(self, request: web.Request) -> web.Response:
        """Replaces the script of a film."""
        film, body = self._film(request), await json_body(request, MAX_FILE_BYTES, EXAMPLE)
        # In a thread, because parsing a long script would block the event loop.
        await asyncio.to_thread(_change, film, body)
        return web.json_response(_state(film))

    def _film(self, request: web.Request) -> LiveScript:
        film = self._films.get(request.match_info["id"])
        if film is None:
            refuse(web.HTTPNotFound, f"node {request.match_info['id']} is not making a film")
        return film


LIVE_SCRIPTS = web.AppKey("longlive_studio", LiveScripts)


def add_live_scripts(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    scripts = server.app[LIVE_SCRIPTS] = LiveScripts()
    server.routes.get(PATH)(scripts.films)
    server.routes.get(f"{PATH}/{{id}}/script")(scripts.script)
    server.routes.post(f"{PATH}/{{id}}/script")(scripts.change)


def live_scripts() -> LiveScripts:
    """Returns the live scripts of this server."""
    return PromptServer.instance.app[LIVE_SCRIPTS]


def _change(film: LiveScript, body: Mapping[str, Any]) -> None:
    """Changes the script of a film by the body of a request. Raises an HTTP error if the change is invalid."""
    if "script" not in body:
        refuse(web.HTTPBadRequest, f"the request body must be JSON such as {EXAMPLE}")
    text, version = body["script"], body.get("version")
    if not isinstance(text, str) or not isinstance(version, int | None):
        refuse(web.HTTPBadRequest, "script must be a string and version an integer")
    try:
        film.change(text, version)
    except TooLateError as error:
        refuse(web.HTTPConflict, str(error))
    except ValueError as error:
        refuse(web.HTTPBadRequest, str(error))


def _state(film: LiveScript) -> dict[str, Any]:
    return {"version": film.version, "begun": film.begun, "shots": len(film.script.shots)}
