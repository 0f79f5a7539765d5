"""HTTP routes of the cast files, which the node LongLive Cast shows before it runs.

    GET /longlive/casts?file=…         {"name", "prompt", "origin", "still"}: the address of its picture, or null
    GET /longlive/casts/still?file=…   that picture as PNG

file: its path in the folder of cast files. Pages of other servers are refused.
"""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Any

from aiohttp import web
from PIL import Image
from server import PromptServer

from ...longlive_core.take.cast_file import Card
from ...longlive_core.units import percent_encoded
from ..cast_files import cast_path
from .requests import refuse, same_origin

PATH = "/longlive/casts"
MAX_NAME = 1000


def add_casts(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    server.routes.get(PATH)(_card)
    server.routes.get(f"{PATH}/still")(_still)


async def _card(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(_facts, _requested(request)))


async def _still(request: web.Request) -> web.Response:
    picture = await asyncio.to_thread(_picture, _requested(request))
    return web.Response(body=picture, content_type="image/png", headers={"Cache-Control": "no-cache"})


def _requested(request: web.Request) -> str:
    if not same_origin(request):
        refuse(web.HTTPForbidden, "only pages of this server may read cast files")
    file = request.query.get("file", "")
    if not file or len(file) > MAX_NAME or "\0" in file:
        refuse(web.HTTPBadRequest, "file must be the path of a cast file")
    return file


def _load(file: str) -> Card:
    try:
        return Card.load(cast_path(file))
    except ValueError as error:
        refuse(web.HTTPNotFound, str(error))


def _facts(file: str) -> dict[str, Any]:
    card = _load(file)
    still = f"{PATH}/still?file={percent_encoded(file)}&v={card.digest}" if card.still is not None else None
    return {"name": card.name, "prompt": card.prompt, "origin": card.origin, "still": still}


def _picture(file: str) -> bytes:
    still = _load(file).still
    if still is None:
        refuse(web.HTTPNotFound, f"{file} has no picture")
    png = BytesIO()
    Image.fromarray(still.numpy()).save(png, "PNG")
    return png.getvalue()
