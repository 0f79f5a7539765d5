"""The threads of this server's films, which live as long as the server: a film does not build its plans again."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from ...longlive_core.pipeline.workers import Workers

WORKERS = web.AppKey("longlive_workers", Workers)


def add_workers(server: PromptServer) -> None:
    """Gives a server its threads; none is started before a model is loaded."""
    server.app.setdefault(WORKERS, Workers())


def workers() -> Workers | None:
    """The threads of this server; None in a process that serves nobody."""
    # Scripts use the nodes without a server; the class has no instance then.
    server: PromptServer | None = getattr(PromptServer, "instance", None)
    return None if server is None else server.app.get(WORKERS)
