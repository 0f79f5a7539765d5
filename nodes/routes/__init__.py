"""HTTP routes under /longlive of this server: live scripts, readings and edits of scripts.

Routes check what they are given, refuse pages of other servers and paths outside the output folder, bound the size of
what they read, and execute nothing.
"""

from __future__ import annotations

from server import PromptServer

from .live_scripts import LIVE_SCRIPTS, LiveScripts, add_live_scripts, live_scripts
from .script import add_script

__all__ = ["LIVE_SCRIPTS", "LiveScripts", "add_routes", "live_scripts"]


def add_routes(server: PromptServer) -> None:
    """Adds the routes to a server before it starts."""
    add_live_scripts(server)
    add_script(server)
