"""What every route does with a request: refuses other origins, reads a bounded JSON body, answers with an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from aiohttp import web
from server import PromptServer

JSON = "application/json"


def refuse(kind: Callable[..., web.HTTPError], why: str) -> NoReturn:
    """Answers with an HTTP error whose body is `{"error": why}`."""
    raise kind(text=json.dumps({"error": why}), content_type=JSON)


def same_origin(request: web.Request) -> bool:
    """Returns whether a request comes from a page of this server or from no page, such as a script.

    Browsers send Sec-Fetch-Site. Without it the page's origin is compared with the host, which a proxy may rewrite.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site != "none":
        return site == "same-origin"
    return origin is None or origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()


def user_of(request: web.Request) -> str | None:
    """Returns the id of the host's user who sends a request; None for a user that the host does not know."""
    try:
        return PromptServer.instance.user_manager.get_request_user_id(request)
    except KeyError:
        return None


async def json_body(request: web.Request, limit: int, example: str) -> dict[str, Any]:
    """Reads the JSON object in the body of a request.

    limit: in bytes. example: a body, for the error. Answers 403 to a page of another server, 413 to a larger body, and
    400 to anything but an object.
    """
    if not same_origin(request):
        refuse(web.HTTPForbidden, "only pages of this server may send this request")
    body = await request.content.read(limit + 1)
    while len(body) <= limit and (more := await request.content.read(limit + 1 - len(body))):
        body += more
    if len(body) > limit:
        too_large = partial(web.HTTPRequestEntityTooLarge, limit, len(body))
        refuse(too_large, f"the request body is too large; the limit is {limit / 2**20:g} MiB")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        refuse(web.HTTPBadRequest, f"the request body must be JSON such as {example}")
    return found
