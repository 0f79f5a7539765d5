"""Named memory: the blocks that shots keep under a name, and the shots that recall them.

`@keep=kitchen` keeps the first block of its shot, `@keep=hero@3` the third one; `@recall=kitchen,hero` puts them back
into memory for its shot. With the line `recall: auto` above the first shot, `{kitchen}` in a text recalls it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from .duration import shorten
from .source import ScriptError, SourceText

if TYPE_CHECKING:
    from .cast import CastEntry
    from .shots import Shot

SETTING, AUTO = "recall", "auto"
NAME = re.compile(r"[^\W\d]\w*(?:-\w+)*")
# How many kept names an error lists.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A block that a shot keeps under a name; `block` counts from 1 within the shot."""

    name: str
    block: int = 1

    def __str__(self) -> str:
        return self.name if self.block == 1 else f"{self.name}@{self.block}"


@dataclass(frozen=True, slots=True)
class Recalled:
    """A kept block that a shot recalls; `shot` counts from 0, `block` from 1 within it.

    The block of a cast file is block 1 of a shot before the film: -1 is the script's first file, -2 its second one.
    """

    shot: int
    block: int


def read_kept(source_text: SourceText, token: re.Match[str]) -> tuple[Kept, ...]:
    """Reads `@keep=…`. Raises ScriptError for a name or a block number that is none."""
    kept: list[Kept] = []
    for part in _parts(source_text, token, "@keep=kitchen,hero@3"):
        name, at, number = part.partition("@")
        if at and not (number.isascii() and number.isdigit() and len(number) <= 6 and int(number) > 0):
            message = f"'{shorten(number)}' is no number of a block"
            raise source_text.error(message, "write for example @keep=hero@3, counted from 1", token.start())
        kept.append(Kept(_name(source_text, token, name), int(number) if at else 1))
    return tuple(kept)


def read_recalled(source_text: SourceText, token: re.Match[str]) -> tuple[str, ...]:
    """Reads `@recall=…`. Raises ScriptError for a name that is none."""
    parts = _parts(source_text, token, "@recall=kitchen,hero")
    return tuple(_name(source_text, token, part) for part in parts)


def format_words(keeps: Iterable[Kept], recalls: Iterable[str]) -> str:
    """Returns the words of a shot as they are written behind its text, with a space in front."""
    words = (("keep", ",".join(map(str, keeps))), ("recall", ",".join(recalls)))
    return "".join(f" @{word}={names}" for word, names in words if names)


def resolve(shots: Sequence[Shot], *, auto: bool, cast: Sequence[CastEntry] = ()) -> tuple[tuple[Recalled, ...], ...]:
    """Returns the kept blocks that each shot recalls, in the order in which it names them, each once.

    auto: names in curly brackets recall, too, where an earlier shot keeps them. cast: the script's cast files, whose
    blocks every shot can recall. Raises ScriptError for a name that is kept twice or that a cast file has, too, and for
    one that is recalled twice by a shot or that neither an earlier shot nor a cast file has.
    """
    keepers = {file.name.casefold(): Recalled(-1 - index, 1) for index, file in enumerate(cast)}
    result: list[tuple[Recalled, ...]] = []
    for index, shot in enumerate(shots):
        keys = [name.casefold() for name in shot.recalls]
        for name, key in zip(shot.recalls, keys, strict=True):
            if keys.count(key) > 1:
                raise _error(shot, "recall", f"shot {index + 1} recalls '{name}' twice", "name it once")
            if key not in keepers:
                raise _not_kept(shots, index, name, keepers)
        named = [key for key in _names_in(shot.text) if auto and key in keepers and key not in keys]
        result.append(tuple(dict.fromkeys(keepers[key] for key in (*keys, *named))))
        for kept in shot.keeps:
            if (before := keepers.get(kept.name.casefold())) is not None:
                other = f"shot {before.shot + 1} keeps" if before.shot >= 0 else f"{cast[-1 - before.shot].path} has"
                message = f"shot {index + 1} keeps '{kept.name}', which {other} already"
                raise _error(shot, "keep", message, "give one of them another name")
            keepers[kept.name.casefold()] = Recalled(index, kept.block)
    return tuple(result)


def _names_in(text: str) -> list[str]:
    from .shot_text import REFERENCE  # which imports this module

    return [name[1].strip().casefold() for name in REFERENCE.finditer(text) if name[1]]


def _parts(source_text: SourceText, token: re.Match[str], example: str) -> list[str]:
    parts = (token["value"] or "").split(",")
    if not all(parts):
        remedy = f"write names with commas and without spaces, as in {example}"
        raise source_text.error(f"an empty name in '{shorten(token[0])}'", remedy, token.start())
    return parts


def _name(source_text: SourceText, token: re.Match[str], name: str) -> str:
    if NAME.fullmatch(name) is None:
        remedy = "a name has letters, digits, _ and single -, and begins with a letter"
        raise source_text.error(
            f"'{shorten(name)}' in '{shorten(token[0])}' is not a valid name", remedy, token.start()
        )
    return name


def _not_kept(shots: Sequence[Shot], index: int, name: str, keepers: dict[str, Recalled]) -> ScriptError:
    message = f"shot {index + 1} recalls '{name}', which no earlier shot keeps"
    keeping = (i for i, shot in enumerate(shots) if name.casefold() in {kept.name.casefold() for kept in shot.keeps})
    if (at := next(keeping, None)) is not None:
        where = "this shot itself" if at == index else f"shot {at + 1}, which is later,"
        remedy = f"{where} keeps it: recall it in a shot after that, or keep it earlier"
    elif index == 0 and not keepers:
        remedy = "the first shot has nothing to recall: take it out"
    else:
        near = get_close_matches(name.casefold(), keepers, 1, 0.6)
        known = ", ".join(list(keepers)[:SHOWN]) or "nothing"
        example = f"write @recall={near[0]}, or add" if near else "add"
        remedy = f"{example} @keep={name} to an earlier shot, or take it out (kept so far: {known})"
    return _error(shots[index], "recall", message, remedy)


def _error(shot: Shot, word: str, message: str, remedy: str) -> ScriptError:
    """An error at a word of a shot, or at its header if the word is on another line."""
    return shot.source.error(message, remedy, max(0, shot.source.text.find(f"@{word}")))
