"""More shots behind those of a script, in a text of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .duration import short
from .reader import MAX_SHOTS, STYLE, Draft, Reader
from .shot_text import parse_text
from .shots import ShotScript, read_definitions, read_shot
from .source import Line, ScriptError


def with_more(script: ShotScript, text: str) -> ShotScript:
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
    shots = tuple(read_shot(draft, definitions) for draft in added.shots)
    return replace(script, shots=(*script.shots, *shots), names=definitions.names)


def _new(definitions: list[Draft], script: ShotScript) -> Iterator[Draft]:
    """Those that the script has not; the others must say what it says."""
    had = {name.casefold(): text for name, text in script.names}
    had[STYLE] = script.style
    for draft in definitions:
        was = had.get(draft.name.casefold())
        if was is None:
            yield draft
        elif parse_text(draft.passage, in_shot=False).text != was:
            raise _contradiction(draft, was)


def _contradiction(draft: Draft, was: str) -> ScriptError:
    if draft.name.casefold() == STYLE:
        film = f"the film's is '{short(was)}'" if was else "the film has none"
        return draft.source.error(f"another style: {film}", "leave it out, it would change the shots that are made")
    return draft.source.error(
        f"'{short(draft.name)}' is '{short(was)}' in the film already", "leave it out or give the new one another name"
    )
