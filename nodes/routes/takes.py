"""HTTP routes of the takes in the output folder, which the tab of takes and the cards of shots show.

    GET  /longlive/takes?workflow=…&node=…                    {"takes": […], "bytes", "limit", "keep", …}
    GET  /longlive/takes/<name>                               {"name", "script", "shots": [{"versions": […]}], …}
    GET  /longlive/takes/<name>/workflow                      {"workflow"}
    GET  /longlive/takes/<name>/continuity                    {"limit", "shots": [{"shot", "score", …}], "waiting"}
    GET  /longlive/takes/<name>/timeline                      the edit as an .otio file beside the film
    GET  /longlive/takes/<name>/shots/<n>/versions/<v>/still  a JPEG of at most 256 pixels
    POST /longlive/takes/<name>/choose                        {"shot", "version"} -> {"take", "notes"}
    POST /longlive/takes/<name>/lock                          {"shot", "locked"} -> {"take", "notes"}
    POST /longlive/takes/<name>/accept                        {"shot" or null, "accepted"} -> {"take", "notes"}
    POST /longlive/takes/<name>/retake                        {"shot", "seed", "prompt", "mode"} -> {"take", "version"}
    POST /longlive/takes/<name>/prune                         {"memory"} -> {"take", "freed"}
    POST /longlive/takes/<name>/delete                        {} -> {"freed"}
    POST /longlive/takes/<name>/changes                       {"script", "default_seconds", "settings"} -> changes
    POST /longlive/takes/changes                              see take_of_film.py

The name is the path in the output folder as one part of the address, encoded. Shots count from 1, versions from 0.
Nothing is sampled here. A take that is being made cannot be changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ...longlive_core.render.timeline import timeline_of
from ...longlive_core.take import Take
from ...longlive_core.take.lock import TakeLock
from ...longlive_core.take.take import WORKFLOW
from ...longlive_core.units import percent_encoded
from ..continuity import continuity
from ..keep_settings import USER, KeepSettings
from ..kept_take import film_key, kept_takes
from ..take_folders import list_takes, take_folder
from ..take_json import PATH, TakeView, removable
from .requests import json_body, refuse, same_origin, user_of
from .take_changes import CHANGES, Change, preview
from .take_lookup import folder_of, load_take, name_of, requested_name, view_of
from .take_of_film import take_of_film_route

BODY_BYTES = 2**20
MAX_TAKES = 1000


def add_takes(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    routes = server.routes
    routes.get(PATH)(_guarded(list_route))
    routes.get(f"{PATH}/{{name}}")(_guarded(take_route))
    routes.get(f"{PATH}/{{name}}/workflow")(_guarded(workflow_route))
    routes.get(f"{PATH}/{{name}}/continuity")(_guarded(partial(continuity_route, asyncio.Lock())))
    routes.get(f"{PATH}/{{name}}/timeline")(_guarded(timeline_route))
    still = rf"{PATH}/{{name}}/shots/{{shot:\d{{1,4}}}}/versions/{{version:\d{{1,6}}}}/still"
    routes.get(still)(_guarded(still_route))
    for action, (change, example) in CHANGES.items():
        routes.post(f"{PATH}/{{name}}/{action}")(partial(change_route, change, example))
    routes.post(f"{PATH}/{{name}}/changes")(preview_route)
    routes.post(f"{PATH}/changes")(take_of_film_route)


async def list_route(request: web.Request) -> web.Response:
    """Lists takes, newest first; with a workflow and a node those that their film saved by itself."""
    workflow, node = request.query.get("workflow"), request.query.get("node")
    return web.json_response(await asyncio.to_thread(_list, workflow, node, user_of(request) or USER))


async def take_route(request: web.Request) -> web.Response:
    """Returns one take with its shots and versions."""
    return web.json_response(await asyncio.to_thread(_details, requested_name(request)))


async def workflow_route(request: web.Request) -> web.Response:
    """Returns the workflow that made the newest film of a take."""
    folder = folder_of(requested_name(request))
    try:
        workflow = json.loads(await asyncio.to_thread((folder / WORKFLOW).read_text, "utf-8"))
    except (OSError, ValueError):
        refuse(web.HTTPNotFound, f"{requested_name(request)} has no workflow: only films of the canvas store one")
    return web.json_response({"workflow": workflow})


async def continuity_route(one: asyncio.Lock, request: web.Request) -> web.Response:
    """Returns what the shots of a film score, worked out when it is asked for; one film at a time.

    While prompts wait or are executed, it is what was worked out before, or `waiting`.
    """
    name = requested_name(request)
    async with one:
        report = await asyncio.to_thread(lambda: continuity(view_of(name, load_take(name)), _is_busy))
    return web.json_response(report)


async def timeline_route(request: web.Request) -> web.Response:
    """Returns the edit of a take as an OpenTimelineIO file, to be put beside the film's file."""
    text, film = await asyncio.to_thread(_timeline, requested_name(request))
    headers = {"Content-Disposition": f'attachment; filename="{percent_encoded(film.stem)}.otio"'}
    return web.Response(text=text, content_type="application/json", headers=headers)


async def still_route(request: web.Request) -> web.StreamResponse:
    """Returns the still of a version."""
    name, shot, version = requested_name(request), int(request.match_info["shot"]), int(request.match_info["version"])
    take = await asyncio.to_thread(load_take, name)
    path = take.still(shot - 1, version) if 1 <= shot <= len(take.shots) else None
    if path is None or not path.is_file():
        refuse(web.HTTPNotFound, f"{name} has no still of shot {shot}, version {version}")
    headers = {"Content-Type": "image/jpeg", "Cache-Control": "max-age=31536000, immutable"}
    return web.FileResponse(path, headers=headers)


async def change_route(change: Change, example: str, request: web.Request) -> web.Response:
    """Changes a take: choose, lock, accept, retake, prune or delete."""
    body = await json_body(request, BODY_BYTES, example)
    return web.json_response(await asyncio.to_thread(_change, change, requested_name(request), body))


async def preview_route(request: web.Request) -> web.Response:
    """Returns what a script would change."""
    body = await json_body(request, BODY_BYTES, '{"script": "…"}')
    return web.json_response(await asyncio.to_thread(_preview, requested_name(request), body))


def _guarded(
    route: Callable[[web.Request], Any],
) -> Callable[[web.Request], Any]:
    """Refuses pages of other servers, which could otherwise show the user's pictures."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        if not same_origin(request):
            refuse(web.HTTPForbidden, "only pages of this server may read takes")
        return await route(request)

    return guarded


def _is_busy() -> bool:
    return PromptServer.instance.prompt_queue.get_tasks_remaining() > 0


def _list(workflow: str | None, node: str | None, user: str) -> dict[str, Any]:
    if workflow is not None and node is not None:
        names = [name_of(path) for _, path in kept_takes(film_key(workflow, node))]
    else:
        names = list_takes()
    views, unreadable = list[TakeView](), list[dict[str, str]]()
    for name in names[:MAX_TAKES]:
        try:
            views.append(view_of(name, Take.load(take_folder(name))))
        except (OSError, ValueError) as error:
            unreadable.append({"name": name, "error": str(error)})
    settings = KeepSettings.load(user)
    offered = removable(views, settings.limit)
    return {
        "takes": [view.summary(removable=view.name in offered) for view in views],
        "unreadable": unreadable,
        "left_out": max(0, len(names) - MAX_TAKES),
        "bytes": sum(view.bytes for view in views if view.auto),
        "limit": settings.limit,
        "keep": settings.keep,
    }


def _timeline(name: str) -> tuple[str, Path]:
    """The text of a timeline, and the film's file."""
    view = view_of(name, load_take(name))
    film = view.film
    if film is None:
        refuse(web.HTTPConflict, f"the film of {name} is not in the output folder: make it first")
    try:
        return timeline_of(view.take, film), film
    except (OSError, ValueError) as error:
        refuse(web.HTTPConflict, str(error))


def _details(name: str) -> dict[str, Any]:
    return view_of(name, load_take(name)).details()


def _change(change: Change, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Changes a take under its lock. Raises an HTTP error if it is being made or the change is refused."""
    take = load_take(name)
    try:
        with TakeLock(take.folder):
            answer = change(Take.load(take.folder), body)
    except BlockingIOError:
        refuse(web.HTTPConflict, f"{name} is being made: wait until its film is finished, or cancel it")
    except ValueError as error:
        refuse(web.HTTPBadRequest, str(error))
    except OSError as error:
        refuse(web.HTTPInternalServerError, str(error))
    return answer if "removed" in answer else {"take": _details(name), **answer}


def _preview(name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    take = load_take(name)
    try:
        return preview(take, body)
    except ValueError as error:
        refuse(web.HTTPBadRequest, str(error))
