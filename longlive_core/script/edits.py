"""The edits that can be made to a script, and how they are read from JSON. Shots are counted from 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from .duration import LIMITS, shorten
from .shot_text import MAX_SEED


@dataclass(frozen=True, slots=True)
class Move:
    """Moves a shot, so that it is shot `to` afterwards."""

    shot: int
    to: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Gives a shot a length in whole blocks."""

    shot: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Split:
    """Splits a shot behind its first `blocks`. The second part continues the first, so that the film stays the same."""

    shot: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Puts a copy of a shot behind it."""

    shot: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a shot. A comment above it stays."""

    shot: int


@dataclass(frozen=True, slots=True)
class Insert:
    """Puts a new shot in front of `shot`, or at the end of the film if `shot` is one more than there are."""

    shot: int
    text: str


@dataclass(frozen=True, slots=True)
class SetCut:
    """Lets a shot begin with a cut, or continue the shot before."""

    shot: int
    cut: bool


@dataclass(frozen=True, slots=True)
class SetSeed:
    """Sets the seed of a shot, or removes it."""

    shot: int
    seed: int | None


@dataclass(frozen=True, slots=True)
class SetText:
    """Replaces the text of a shot; it is read as the text behind a header is."""

    shot: int
    text: str


@dataclass(frozen=True, slots=True)
class SetStyle:
    """Replaces the style, or removes it if the text is empty."""

    text: str


@dataclass(frozen=True, slots=True)
class SetName:
    """Defines {name}, or removes it if the text is empty."""

    name: str
    text: str


Edit = Move | Stretch | Split | Duplicate | Delete | Insert | SetCut | SetSeed | SetText | SetStyle | SetName
KINDS: dict[str, type[Edit]] = {
    "move": Move,
    "stretch": Stretch,
    "split": Split,
    "duplicate": Duplicate,
    "delete": Delete,
    "insert": Insert,
    "cut": SetCut,
    "seed": SetSeed,
    "text": SetText,
    "style": SetStyle,
    "name": SetName,
}
TYPES: dict[str, tuple[type, str]] = {
    "shot": (int, "the number of a shot"),
    "to": (int, "the number of a shot"),
    "blocks": (int, f"a whole number from 1 to {LIMITS['blocks']}"),
    "text": (str, "a text"),
    "name": (str, "a text"),
    "cut": (bool, "true or false"),
    "seed": (int, f"a whole number from 0 to {MAX_SEED}, or null"),
}


def read_edit(values: Mapping[str, object]) -> Edit:
    """Reads an edit such as `{"kind": "move", "shot": 3, "to": 1}`. Raises ValueError for anything else."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"the edit is of kind '{shorten(str(kind))}'; choose one of {', '.join(KINDS)}")
    names = [field.name for field in fields(KINDS[kind])]
    if given := sorted({*values} - {"kind", *names}):
        raise ValueError(f"an edit '{kind}' has no '{shorten(given[0])}'; it has {', '.join(names)}")
    return KINDS[kind](**{name: _value(kind, name, values.get(name)) for name in names})  # pyright: ignore[reportArgumentType]


def _value(kind: str, name: str, value: object) -> object:
    """Checks a value of an edit. Raises ValueError."""
    wanted, what = TYPES[name]
    if name == "seed" and value is None:
        return None
    right = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    limits = {"blocks": (1, LIMITS["blocks"]), "seed": (0, MAX_SEED)}.get(name)
    if not right or (limits and isinstance(value, int) and not limits[0] <= value <= limits[1]):
        raise ValueError(f"'{name}' of an edit '{kind}' is '{shorten(str(value))}'; it must be {what}")
    return value
