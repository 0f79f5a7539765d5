"""HTTP routes under /longlive of this server: films, live scripts, readings and edits of scripts, takes, cast files.

Routes check what they are given, refuse pages of other servers and paths outside the folders of takes and cast files,
bound the size of what they read, and execute nothing.
"""

from __future__ import annotations

from server import PromptServer

from .casts import add_casts
from .films import FILMS, add_films, films
from .ranks import add_ranks
from .script import add_script
from .takes import add_takes
from .workers import add_workers

__all__ = ["FILMS", "add_routes", "films"]


def add_routes(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    add_workers(server)
    add_ranks(server)
    add_films(server)
    add_script(server)
    add_casts(server)
    add_takes(server)
