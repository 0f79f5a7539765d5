"""The route of the take that a run of a node would go on in.

    POST /longlive/takes/changes  {"workflow", "node", "script", "default_seconds", "settings", "sources"}
                                  -> {"take" or null, "changes" or null, "refused"}

settings: those of the node by the names of a take's. sources: as in `nodes/sources.py`. If nothing of the film is in a
take of the node, it is the newest one. refused: why a script cannot be followed, as where it changes a locked shot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ...longlive_core.take.follow import LockedShotError
from ..kept_take import COMPARED, film_key, kept_takes
from .requests import json_body, refuse
from .take_changes import preview_newest
from .take_lookup import load_take, name_of, view_of

BODY_BYTES = 2**20


async def take_of_film_route(request: web.Request) -> web.Response:
    """Returns the take that a run would go on in, and what it would change there."""
    body = await json_body(request, BODY_BYTES, '{"workflow": "…", "node": "3", "script": "…"}')
    return web.json_response(await asyncio.to_thread(_take_of_film, body))


def _take_of_film(body: Mapping[str, Any]) -> dict[str, Any]:
    workflow, node = body.get("workflow"), body.get("node")
    if not isinstance(workflow, str) or not isinstance(node, str):
        refuse(web.HTTPBadRequest, "workflow and node must be strings")
    folders = [path for _, path in kept_takes(film_key(workflow, node))[:COMPARED]]
    try:
        take, changes = preview_newest(folders, body)
    except LockedShotError as error:
        newest = load_take(name_of(folders[0]))
        return {"take": view_of(name_of(newest.folder), newest).details(), "changes": None, "refused": str(error)}
    except ValueError as error:
        refuse(web.HTTPBadRequest, str(error))
    view = None if take is None else view_of(name_of(take.folder), take).details()
    return {"take": view, "changes": changes or None, "refused": ""}
