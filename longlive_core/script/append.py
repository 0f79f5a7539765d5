"""Appends the shots of a second text to a script."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .cast import name_of_path, take_cast
from .duration import shorten
from .entry import MAX_SHOTS, STYLE, Entry, referenced_names
from .reader import Reader
from .recall import resolve
from .settle import settle_unused_names
from .shot_text import parse_text
from .shots import ShotScript, read_definitions, read_shot, reading_of, take_auto_recall
from .source import Line, ScriptError


def append_shots(script: ShotScript, text: str) -> ShotScript:
    """Returns the script followed by the shots of `text`, which may use the names of the script and define others.

    Its `reading` is that of `text`.

    Raises ScriptError, with line and column of `text`, if it is not a script, has no shots, or defines the style or a
    name differently from the script.
    """
    existing, added = Reader(), Reader()
    existing.read(script.format())
    added.read(text)
    take_auto_recall(existing)
    if take_auto_recall(added) and not script.auto_recall:
        message = "'recall: auto', which the film to continue does not have"
        raise ScriptError(message, remedy="it would change its shots: write @recall=… in the new ones")
    take_cast(existing, name_of_path)
    if new := [file for file in take_cast(added, name_of_path) if file not in script.cast]:
        message = f"'cast: {shorten(str(new[0]))}', which the film to continue does not have"
        raise ScriptError(message, remedy="render a new film of the whole script, or leave the line out")
    if not added.shots:
        last = added.definitions[-1].source if added.definitions else Line("", 1)
        raise last.error("no shots to add", "write one shot per line, as in 'Shot 1 (4s): a red fox in the snow'")
    if (total := len(script.shots) + len(added.shots)) > MAX_SHOTS:
        first = added.shots[MAX_SHOTS - len(script.shots)]
        raise first.source.error(f"with these the film has {total:,} shots; the limit is {MAX_SHOTS:,}", "add fewer")
    read_definitions([*existing.definitions, *_new(added.definitions, script)])
    texts = [entry.source_text.text for entry in (*existing.definitions, *added.definitions, *added.shots)]
    defined = {name.casefold() for name, _ in script.names}
    settle_unused_names(added, referenced_names(texts) | defined)
    definitions = read_definitions([*existing.definitions, *_new(added.definitions, script)])
    shots = tuple(read_shot(entry, definitions) for entry in added.shots)
    resolve((*script.shots, *shots), auto=script.auto_recall, cast=script.cast)
    reading = reading_of(added, shots)
    return replace(script, shots=(*script.shots, *shots), names=definitions.names, reading=reading)


def _new(definitions: list[Entry], script: ShotScript) -> Iterator[Entry]:
    """Yields the definitions that the script lacks. Raises ScriptError for one that differs from the script's."""
    existing = {name.casefold(): text for name, text in script.names} | {STYLE: script.style}
    for entry in definitions:
        text = existing.get(entry.name.casefold())
        if text is None:
            yield entry
        elif parse_text(entry.source_text, in_shot=False).text != text:
            raise _contradiction(entry, text)


def _contradiction(entry: Entry, text: str) -> ScriptError:
    name = shorten(entry.name)
    message, remedy = f"'{name}' is '{shorten(text)}' in the film already", "leave it out or choose another name"
    if entry.name.casefold() == STYLE:
        film = f"the style of the film is '{shorten(text)}'" if text else "the film has no style"
        message, remedy = f"another style: {film}", "leave it out: it would change the existing shots"
    return entry.source.error(message, remedy)
