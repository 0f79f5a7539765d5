"""Takes in the output folder by the names that requests have; what is not there is refused."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from aiohttp import web

from ...longlive_core.take import Take
from ..take_folders import take_folder
from ..take_json import TakeView
from .films import films
from .requests import refuse

MAX_NAME = 1000


def name_of(folder: Path) -> str:
    """The name of a take: its path in the output folder."""
    return folder.relative_to(output_folder()).as_posix()


def view_of(name: str, take: Take) -> TakeView:
    """A take as JSON, with whether this server makes it now."""
    making = {film.info.take for film in films().of() if film.running}
    return TakeView(name, take, output_folder(), making=name in making)


def load_take(name: str) -> Take:
    """Loads a take. Refuses one that is not there or cannot be read."""
    try:
        return Take.load(folder_of(name))
    except FileNotFoundError:
        refuse(web.HTTPNotFound, f"there is no take {name} in the output folder")
    except (OSError, ValueError) as error:
        refuse(web.HTTPBadRequest, str(error))


def folder_of(name: str) -> Path:
    """The folder of a take. Refuses a name that leaves the output folder."""
    try:
        return take_folder(name)
    except (OSError, ValueError) as error:
        refuse(web.HTTPNotFound, str(error))


def requested_name(request: web.Request) -> str:
    """The name of the take in the address of a request."""
    name = request.match_info["name"]
    if len(name) > MAX_NAME or "\0" in name:
        refuse(web.HTTPNotFound, "there is no take of this name")
    return name


def output_folder() -> Path:
    """The output folder of the host."""
    return Path(folder_paths.get_output_directory()).resolve()
