"""Films in the making on this server, and how their scripts are read and written anew over HTTP.

    GET  /longlive/takes                 [{"id", "title", "version", "begun", "shots"}, …]
    GET  /longlive/takes/<id>/script     {"script", "version", "begun", "shots"}
    POST /longlive/takes/<id>/script     {"script", "version"} -> {"version", "begun", "shots"}

The id is that of the node that makes the film. A change is checked at once and taken up when the next shot begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from aiohttp import web
from server import PromptServer

from ..longlive_core.live import LiveScript, TooLateError

PATH = "/longlive/takes"


class Studio:
    """The scripts of the films that are being made, by the id of the node that makes them."""

    def __init__(self) -> None:
        self._films: dict[str, LiveScript] = {}

    @contextmanager
    def making(self, films: Mapping[str, LiveScript]) -> Iterator[None]:
        """Their scripts can be changed meanwhile."""
        self._films.update(films)
        try:
            yield
        finally:
            for key in films:
                self._films.pop(key, None)

    async def films(self, _: web.Request) -> web.Response:
        return web.json_response([{"id": key, **_state(film)} for key, film in self._films.items()])

    async def script(self, request: web.Request) -> web.Response:
        film = self._film(request)
        return web.json_response({"script": film.script.format(), **_state(film)})

    async def change(self, request: web.Request) -> web.Response:
        if not same_origin(request):
            _refuse(web.HTTPForbidden, "scripts are changed from this server's own pages only")
        film = self._film(request)
        try:
            wanted = json.loads(await request.text())
            text, version = wanted["script"], wanted.get("version")
        except (ValueError, KeyError, TypeError, AttributeError):
            _refuse(web.HTTPBadRequest, 'the request is no JSON of the form {"script": "…", "version": 0}')
        if not isinstance(text, str) or not isinstance(version, int | None):
            _refuse(web.HTTPBadRequest, "script must be a text and version a whole number")
        try:
            film.change(text, version)
        except TooLateError as error:
            _refuse(web.HTTPConflict, str(error))
        except ValueError as error:
            _refuse(web.HTTPBadRequest, str(error))
        return web.json_response(_state(film))

    def _film(self, request: web.Request) -> LiveScript:
        film = self._films.get(request.match_info["id"])
        if film is None:
            _refuse(web.HTTPNotFound, f"no film is being made by node {request.match_info['id']}")
        return film


STUDIO = web.AppKey("longlive_studio", Studio)


def open_studio(server: PromptServer) -> None:
    """Adds the routes to a server that has not begun to serve."""
    opened = server.app[STUDIO] = Studio()
    server.routes.get(PATH)(opened.films)
    server.routes.get(f"{PATH}/{{id}}/script")(opened.script)
    server.routes.post(f"{PATH}/{{id}}/script")(opened.change)


def studio() -> Studio:
    """The server's."""
    return PromptServer.instance.app[STUDIO]


def same_origin(request: web.Request) -> bool:
    """Whether a request comes from a page of this server, or from no page at all: a browser names the page's origin."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()


def _state(film: LiveScript) -> dict[str, Any]:
    return {"version": film.version, "begun": film.begun, "shots": len(film.script.shots)}


def _refuse(kind: type[web.HTTPError], why: str) -> NoReturn:
    raise kind(text=json.dumps({"error": why}), content_type="application/json")
