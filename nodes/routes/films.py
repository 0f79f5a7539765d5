"""HTTP routes of the films that are made and were made while this server runs, and of their live scripts.

    GET  /longlive/films?client=…&workflow=…   [{"key", "state", "bytes", …, "scripts": [{"node", "version", …}]}, …]
    GET  /longlive/films/<key>                 the same of one film, with "blocks": [[first frame, byte], …]
    GET  /longlive/films/<key>/script          {"script", "version", "begun", "shots"}
    POST /longlive/films/<key>/script          {"script", "version"} -> {"version", "begun", "shots"}

A script's film is named by its key, or by the node that samples it: as `?node=…` where several nodes do, or in place of
the key, where only one film of that node is being made. A change is checked at once and takes effect when the next
shot begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from server import PromptServer

from ...longlive_core.film.live_script import LiveScript, TooLateError
from ...longlive_core.script.source import MAX_FILE_BYTES
from ..films import Films, RunningFilm, script_state, send_film
from .requests import json_body, refuse, user_of

PATH = "/longlive/films"
EXAMPLE = '{"script": "…", "version": 0}'
FILMS = web.AppKey("longlive_films", Films)


def add_films(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    routes = FilmRoutes(server.app.setdefault(FILMS, Films(send_film)))
    server.routes.get(PATH)(routes.list)
    server.routes.get(f"{PATH}/{{key}}")(routes.film)
    server.routes.get(f"{PATH}/{{key}}/script")(routes.script)
    server.routes.post(f"{PATH}/{{key}}/script")(routes.change)


def films() -> Films:
    """Returns the films of this server."""
    return PromptServer.instance.app[FILMS]


class FilmRoutes:
    """The routes over the films of a server."""

    def __init__(self, films: Films) -> None:
        self._films = films

    async def list(self, request: web.Request) -> web.Response:
        """Lists films, of one client and workflow if the request names them."""
        client, user = request.query.get("client"), user_of(request)
        if client and user:
            self._films.page_of(client, user)
        found = self._films.of(client, request.query.get("workflow"))
        return web.json_response([film.described() for film in found])

    async def film(self, request: web.Request) -> web.Response:
        """Returns one film with its blocks."""
        film = self._films.get(request.match_info["key"])
        if film is None:
            refuse(web.HTTPNotFound, f"this server has no film {request.match_info['key']}")
        return web.json_response({**film.described(), "blocks": list(film.blocks)})

    async def script(self, request: web.Request) -> web.Response:
        """Returns the script of a film."""
        live = self._live(request)
        return web.json_response({"script": live.script.format(), **script_state(live)})

    async def change(self, request: web.Request) -> web.Response:
        """Replaces the script of a film."""
        live, body = self._live(request), await json_body(request, MAX_FILE_BYTES, EXAMPLE)
        # In a thread, because parsing a long script would block the event loop.
        await asyncio.to_thread(_change, live, body)
        return web.json_response(script_state(live))

    def _live(self, request: web.Request) -> LiveScript:
        key, node = request.match_info["key"], request.query.get("node")
        film = self._films.get(key)
        if film is None:
            film, node = self._only(key, request.query.get("client")), key
        scripts = film.scripts if film.running else {}
        if node is None and len(scripts) == 1:
            return next(iter(scripts.values()))
        if node is None and scripts:
            refuse(web.HTTPBadRequest, f"nodes {', '.join(scripts)} make this film: add ?node= with one of them")
        if node not in scripts:
            refuse(web.HTTPNotFound, f"{'the film' if node is None else f'node {node}'} is not being made")
        return scripts[node]

    def _only(self, node: str, client: str | None) -> RunningFilm:
        """The only film that is being made by a node."""
        found = [film for film in self._films.of(client) if film.running and node in film.scripts]
        if not found:
            refuse(web.HTTPNotFound, f"node {node} is not making a film")
        if len(found) > 1:
            refuse(web.HTTPConflict, f"{len(found)} films are being made by a node {node}: use a key of {PATH}")
        return found[0]


def _change(live: LiveScript, body: Mapping[str, Any]) -> None:
    """Changes a script by the body of a request. Raises an HTTP error if the change is invalid."""
    if "script" not in body:
        refuse(web.HTTPBadRequest, f"the request body must be JSON such as {EXAMPLE}")
    text, version = body["script"], body.get("version")
    if not isinstance(text, str) or not isinstance(version, int | None):
        refuse(web.HTTPBadRequest, "script must be a string and version an integer")
    try:
        live.change(text, version)
    except TooLateError as error:
        refuse(web.HTTPConflict, str(error))
    except ValueError as error:
        refuse(web.HTTPBadRequest, str(error))
