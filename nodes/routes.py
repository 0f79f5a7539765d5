"""HTTP routes that list the films that are being made, and read and change their scripts.

    GET  /longlive/takes                 [{"id", "title", "version", "begun", "shots"}, …]
    GET  /longlive/takes/<id>/script     {"script", "version", "begun", "shots"}
    POST /longlive/takes/<id>/script     {"script", "version"} -> {"version", "begun", "shots"}

The id is that of the node that makes the film. A change is checked at once and takes effect when the next shot begins.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from aiohttp import web
from server import PromptServer

from ..longlive_core.film.live_script import LiveScript, TooLateError
from ..longlive_core.script.source import MAX_FILE_BYTES

PATH = "/longlive/takes"


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
        if not same_origin(request):
            _refuse(web.HTTPForbidden, "only pages of this server may change scripts")
        film = self._film(request)
        body = await request.read()
        if len(body) > MAX_FILE_BYTES:
            too_large = partial(web.HTTPRequestEntityTooLarge, MAX_FILE_BYTES, len(body))
            _refuse(too_large, f"the script is too large; the limit is {MAX_FILE_BYTES // 2**20} MiB")
        # In a thread, because parsing a long script would block the event loop.
        await asyncio.to_thread(_change, film, body)
        return web.json_response(_state(film))

    def _film(self, request: web.Request) -> LiveScript:
        film = self._films.get(request.match_info["id"])
        if film is None:
            _refuse(web.HTTPNotFound, f"node {request.match_info['id']} is not making a film")
        return film


LIVE_SCRIPTS = web.AppKey("longlive_studio", LiveScripts)


def add_routes(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    scripts = server.app[LIVE_SCRIPTS] = LiveScripts()
    server.routes.get(PATH)(scripts.films)
    server.routes.get(f"{PATH}/{{id}}/script")(scripts.script)
    server.routes.post(f"{PATH}/{{id}}/script")(scripts.change)


def live_scripts() -> LiveScripts:
    """Returns the live scripts of this server."""
    return PromptServer.instance.app[LIVE_SCRIPTS]


def same_origin(request: web.Request) -> bool:
    """Returns whether a request comes from a page of this server or from no page, such as a script.

    Browsers send Sec-Fetch-Site. Without it the page's origin is compared with the host, which a proxy may rewrite.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site != "none":
        return site == "same-origin"
    return origin is None or origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()


def _change(film: LiveScript, body: bytes) -> None:
    """Changes the script of a film by the body of a request. Raises an HTTP error if the change is invalid."""
    try:
        request = json.loads(body)
        text, version = request["script"], request.get("version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _refuse(web.HTTPBadRequest, 'the request body must be JSON such as {"script": "…", "version": 0}')
    if not isinstance(text, str) or not isinstance(version, int | None):
        _refuse(web.HTTPBadRequest, "script must be a string and version an integer")
    try:
        film.change(text, version)
    except TooLateError as error:
        _refuse(web.HTTPConflict, str(error))
    except ValueError as error:
        _refuse(web.HTTPBadRequest, str(error))


def _state(film: LiveScript) -> dict[str, Any]:
    return {"version": film.version, "begun": film.begun, "shots": len(film.script.shots)}


def _refuse(kind: Callable[..., web.HTTPError], why: str) -> NoReturn:
    raise kind(text=json.dumps({"error": why}), content_type="application/json")
