"""More shots behind those of a script, in a text of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .duration import shorten
from .reader import MAX_SHOTS, STYLE, Entry, Reader
from .shot_text import parse_text
from .shots import ShotScript, read_definitions, read_shot
from .source import Line, ScriptError


def append_shots(script: ShotScript, text: str) -> ShotScript:
    """The script with the shots of `text` behind its own. The text may use the script's names and define others.

    Raises ScriptError, with line and column of `text`, where it is no script, has no shots, or gives the style or a
    name another text than the script has.
    """
    told, added = Reader(), Reader()
    told.read(script.format())
    added.read(text)
    if not added.shots:
        last = added.definitions[-1].source if added.definitions else Line("", 1)
        raise last.error("no shots to add", "write one shot per line, as in 'Shot 1 (4s): a red fox in the snow'")
    total = len(script.shots) + len(added.shots)
    if total > MAX_SHOTS:
        first = added.shots[MAX_SHOTS - len(script.shots)]
        raise first.source.error(f"with these the film has {total:,} shots; the limit is {MAX_SHOTS:,}", "add fewer")
    definitions = read_definitions([*told.definitions, *_new(added.definitions, script)])
    shots = tuple(read_shot(entry, definitions) for entry in added.shots)
    return replace(script, shots=(*script.shots, *shots), names=definitions.names)


def _new(definitions: list[Entry], script: ShotScript) -> Iterator[Entry]:
    """Those that the script has not; the others must say what it says."""
    had = {name.casefold(): text for name, text in script.names}
    had[STYLE] = script.style
    for entry in definitions:
        was = had.get(entry.name.casefold())
        if was is None:
            yield entry
        elif parse_text(entry.source_text, in_shot=False).text != was:
            raise _contradiction(entry, was)


def _contradiction(entry: Entry, was: str) -> ScriptError:
    if entry.name.casefold() == STYLE:
        film = f"the film's is '{shorten(was)}'" if was else "the film has none"
        return entry.source.error(f"another style: {film}", "leave it out, it would change the shots that are made")
    return entry.source.error(
        f"'{shorten(entry.name)}' is '{shorten(was)}' in the film already",
        "leave it out or give the new one another name",
    )
