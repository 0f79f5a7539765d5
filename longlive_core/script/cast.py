"""Cast files in a script: the line `cast: kitchen.cast.safetensors` above the first shot.

A cast file holds a block of another film. Shots recall it by the name that the file has for it, as they recall a block
that a shot keeps; `cast: hall=kitchen.cast.safetensors` gives it another name. The canonical text has the names, so
that it can be read without the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .duration import shorten
from .entry import Entry, referenced_names
from .reader import Reader
from .recall import NAME

CAST, ENDING, SUFFIX = "cast", ".safetensors", ".cast.safetensors"
FORMAT = "longlive-cast-1"
NAMED = re.compile(rf"(?P<name>{NAME.pattern})\s*=\s*(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class CastEntry:
    """A cast file of a script: the name by which shots recall its block, and its path as written."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.name}={self.path}"


def take_cast(reader: Reader, name_of: Callable[[str], str], given: Iterable[CastEntry] = ()) -> tuple[CastEntry, ...]:
    """Takes the lines `cast: …` of files out of the definitions; returns the files, in order, behind those given.

    name_of: the name of the block in the file with this path. A script may have a name {cast}. Raises ScriptError for
    a name that is none or that two files have, and at the line of a file for which `name_of` raises ValueError.
    """
    files = {file.name.casefold(): file for file in given}
    texts = [entry.source_text.text for entry in (*reader.definitions, *reader.shots)]
    if CAST in referenced_names(texts):
        return tuple(files.values())
    found = [entry for entry in reader.definitions if entry.name.casefold() == CAST and _paths(entry)]
    reader.definitions[:] = [entry for entry in reader.definitions if all(entry is not other for other in found)]
    for entry in found:
        for file in _files(entry, name_of):
            if (other := files.get(file.name.casefold())) is not None:
                remedy = f"give one of them another name, as in cast: {file.name}2={file.path}"
                raise entry.source.error(f"'{file.name}' is the name of {other.path} and of {file.path}", remedy)
            files[file.name.casefold()] = file
    return tuple(files.values())


def _paths(entry: Entry) -> list[str]:
    """The files of a line, with their names; none if the line is something else."""
    parts = [part.strip() for part in entry.source_text.text.split(",")]
    return parts if all(part.casefold().endswith(ENDING) for part in parts) else []


def _files(entry: Entry, name_of: Callable[[str], str]) -> Iterator[CastEntry]:
    for part in _paths(entry):
        named = NAMED.fullmatch(part)
        path = part if named is None else named["path"]
        try:
            in_file = name_of(path)
        except ValueError as error:
            raise entry.source.error(str(error)) from error
        name = in_file if named is None else named["name"]
        if NAME.fullmatch(name) is None:
            remedy = f"write a name of letters, digits, _ and -, as in cast: kitchen={path}"
            raise entry.source.error(f"'{shorten(name)}', the name of {path}, is not a valid name", remedy)
        yield CastEntry(name, path)


def name_of_path(path: str) -> str:
    """The name of a file that is not read: kitchen.cast.safetensors is kitchen."""
    name = re.split(r"[\\/]", path)[-1]
    return name[: -len(SUFFIX if name.casefold().endswith(SUFFIX) else ENDING)]


def find_cast(path: str, folder: Path) -> Path:
    """The cast file of a script in this folder: paths are relative to the folder, else to the current one."""
    beside = folder / path
    return beside if isfile(beside) else Path(path)


def cast_facts(path: Path) -> dict[str, str]:
    """Reads what a cast file says of its block. Raises ValueError for a file that is missing or none."""
    if not isfile(path):  # of which a name that is too long is no error
        raise ValueError(
            f"the cast file {path} does not exist; check the path, or make it with `longlive cast save` or LongLive "
            "Save Cast"
        )
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no cast file ({error}); make it with `longlive cast save`") from error
    if facts.get("format") != FORMAT:
        found = facts.get("format")
        raise ValueError(f"{path} is no cast file (format {found!r}, not {FORMAT!r}); `longlive cast save` makes them")
    return facts
