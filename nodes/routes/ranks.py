"""The processes of this server that share a MODEL, at most one MODEL at a time."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from ..model_ranks import ModelRanks

RANKS = web.AppKey("longlive_ranks", ModelRanks)


def add_ranks(server: PromptServer) -> None:
    """Gives a server its processes; none is started before a film needs one."""
    server.app.setdefault(RANKS, ModelRanks())


def ranks() -> ModelRanks:
    """The processes of this server."""
    return PromptServer.instance.app[RANKS]
