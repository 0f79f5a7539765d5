"""Settings of a training run: from a TOML file to frozen dataclasses, and from dataclasses to TOML and a JSON schema.

The description of a field is that of the docstring of its dataclass ("name: text. other, third: text."), and its limits
are those of a `Setting` in its annotation. A field that is a dataclass itself is a table of the file.
"""

from __future__ import annotations

import difflib
import json
import operator
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

T = TypeVar("T")
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text in quotes",
    Path: "a path in quotes",
}
SCHEMA_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", Path: "string"}


@dataclass(frozen=True)
class Setting:
    """Limits of one field, as in `Annotated[float, Setting(above=0, example=1e-5)]`.

    at_least, above, at_most, below: limits of a number, or of each number of a list. example: the value that the
    written file shows for a field without default, and a remedy for a value out of range.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    example: Any = None

    def range_fault(self, value: float) -> str | None:
        """Returns what is wrong with a number, as in `-1 must be at least 0`; None if nothing is."""
        for limit, holds, words in (
            (self.at_least, operator.ge, "at least"),
            (self.above, operator.gt, "above"),
            (self.at_most, operator.le, "at most"),
            (self.below, operator.lt, "below"),
        ):
            # A NaN satisfies no limit.
            if limit is not None and not holds(value, limit):
                return f"{value:g} must be {words} {limit:g}"
        return None


@dataclass(frozen=True)
class _Entry:
    """A field of a dataclass with its parsed annotation. kind: its type without None and `Annotated`."""

    name: str
    kind: Any
    optional: bool
    setting: Setting
    text: str
    default: Any  # MISSING if the field has none

    @property
    def table(self) -> type[Any] | None:
        """The dataclass of a field that is a table."""
        return cast(type[Any], self.kind) if is_dataclass(self.kind) else None

    @property
    def remedy(self) -> str:
        value = self.setting.example if self.setting.example is not None else self.default
        return "" if value in (None, MISSING) else f"; {_toml(value)} is a common value"


def check_ranges(settings: object) -> None:
    """Checks the numbers of a dataclass against the limits of their `Setting`; for a `__post_init__`.

    Raises ValueError with the value, the limit and a remedy.
    """
    for entry in _entries(type(settings)):
        _check_range(entry, getattr(settings, entry.name), entry.name)


def read_settings(cls: type[T], path: Path) -> T:
    """Reads the dataclass `cls` from a TOML file.

    Raises ValueError that names the file and the key for an unknown key, with the nearest known one, for a missing key,
    for a wrong type and for a value out of range; FileNotFoundError if there is no file.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except FileNotFoundError as error:
        name = path.stem if path.stem in ("ar", "dmd", "lora", "vae") else "ar"
        raise FileNotFoundError(f"{path} does not exist; `longlive train init {name}` prints a template") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    try:
        return _read_table(cls, data, "")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_template(cls: type[Any]) -> str:
    """Returns a TOML file with every field of the dataclass `cls`, its default and its description as a comment.

    A field whose default is "not set" is commented out.
    """
    return "\n".join(_template_lines(cls, "")) + "\n"


def json_schema(cls: type[Any], title: str) -> dict[str, Any]:
    """Returns the JSON schema of the TOML file of the dataclass `cls`, for editors that check while one types."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_table_schema(cls)}


def _entries(cls: type[Any], base: object = None) -> list[_Entry]:
    """The fields of a dataclass. base: an instance whose values are the defaults."""
    hints, texts = get_type_hints(cls, include_extras=True), _descriptions(cls)
    return [_entry(field, hints[field.name], texts.get(field.name, ""), base) for field in fields(cls)]


def _entry(field: Field[Any], hint: Any, text: str, base: object) -> _Entry:  # noqa: ANN401
    setting = Setting()
    if get_origin(hint) is Annotated:
        hint, setting = get_args(hint)
    optional = get_origin(hint) in (Union, UnionType)
    if optional:
        (hint,) = (arg for arg in get_args(hint) if arg is not NoneType)
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    default = default if base is None else getattr(base, field.name)
    return _Entry(field.name, hint, optional, setting, text, default)


def _descriptions(cls: type[Any]) -> dict[str, str]:
    """Descriptions of fields in the docstring of a dataclass: `name: text`, up to the next field, or an empty line."""
    doc = cls.__doc__ or ""
    name = "|".join(re.escape(field.name) for field in fields(cls))
    found: dict[str, str] = {}
    heads = list(re.finditer(rf"(?:(?<=\. )|(?<=\n)|^)\s*((?:(?:{name}),\s+)*(?:{name})):\s", doc))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        text = doc[head.end() : None if following is None else following.start()]
        text = " ".join(re.split(r"\n\s*\n|\bRaises\b", text)[0].split())
        found |= dict.fromkeys(re.split(r",\s+", head[1]), text.removesuffix("."))
    return found


def _read_table(cls: type[T], data: Mapping[str, Any], prefix: str, base: object = None) -> T:
    entries = {entry.name: entry for entry in _entries(cls, base)}
    for key in data:
        if key not in entries:
            near = difflib.get_close_matches(key, entries, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(entries)}"
            raise ValueError(f"unknown key '{prefix}{key}'; {hint}")
    values: dict[str, Any] = {}
    for name, entry in entries.items():
        if name in data:
            values[name] = _read_value(entry, data[name], prefix + name)
        elif entry.default is not MISSING:
            values[name] = entry.default
        elif entry.table is not None:
            values[name] = _read_table(entry.table, {}, f"{prefix}{name}.")
        else:
            raise ValueError(f"'{prefix}{name}' is missing: {entry.text}{entry.remedy}")
    return cls(**values)


def _read_value(entry: _Entry, value: Any, name: str) -> Any:  # noqa: ANN401
    if entry.table is not None:
        if not isinstance(value, dict):
            raise ValueError(f"'{name}' must be a table: write [{name}] and its keys below")
        base = None if entry.default is MISSING else entry.default
        return _read_table(entry.table, cast(dict[str, Any], value), f"{name}.", base)
    read = _typed(entry, entry.kind, value, name)
    _check_range(entry, read, name)
    return read


def _typed(entry: _Entry, kind: Any, value: Any, name: str) -> Any:  # noqa: ANN401
    """Returns `value` as a `kind`. A whole number is also a number; a truth value is not."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"'{name}' = {_toml(value)} must be one of {', '.join(map(_toml, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, list) or len(cast(list[Any], value)) != len(kinds):
            raise ValueError(f"'{name}' must be a list of {len(kinds)} values{entry.remedy}")
        return tuple(_typed(entry, k, v, name) for k, v in zip(kinds, cast(list[Any], value), strict=True))
    accepted = {float: (int, float), Path: (str,)}.get(kind, (kind,))
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"'{name}' = {_toml(value)} must be {TYPE_NAMES[kind]}{entry.remedy}")
    return kind(value)


def _check_range(entry: _Entry, value: Any, name: str) -> None:  # noqa: ANN401
    numbers: Sequence[Any] = cast(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, (int, float)) and (fault := entry.setting.range_fault(number)) is not None:
            raise ValueError(f"'{name}' = {fault}{entry.remedy}")


def _template_lines(cls: type[Any], prefix: str, base: object = None) -> Iterator[str]:
    entries = _entries(cls, base)
    for entry in entries:
        if entry.table is None:
            yield from (f"# {line}" for line in _wrap(_comment(entry)))
            value = entry.setting.example if entry.default in (MISSING, None) else entry.default
            yield ("# " if entry.default is None else "") + f"{entry.name} = {_toml(value)}"
    for entry in entries:
        if entry.table is not None:
            yield ""
            yield from (f"# {line}" for line in _wrap(entry.text))
            off = "# " if entry.default is None else ""
            base = None if entry.default is MISSING else entry.default
            lines = _template_lines(entry.table, f"{prefix}{entry.name}.", base)
            yield from (off + line for line in (f"[{prefix}{entry.name}]", *lines))


def _comment(entry: _Entry) -> str:
    options = get_args(entry.kind) if get_origin(entry.kind) is Literal else ()
    names = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
    limits = [f"{word} {limit:g}" for key, word in names.items() if (limit := getattr(entry.setting, key)) is not None]
    notes = [f"one of {', '.join(map(_toml, options))}"] * bool(options) + [" and ".join(limits)] * bool(limits)
    return entry.text + (f" ({'; '.join(notes)})" if notes else "")


def _wrap(text: str, width: int = 100) -> list[str]:
    return textwrap.wrap(text, width)


def _toml(value: Any) -> str:  # noqa: ANN401
    """Returns a value as TOML writes it; TOML has no None, which is shown as an empty text."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, cast(Sequence[Any], value)))}]"
    if isinstance(value, (str, Path)):
        return json.dumps(value.as_posix() if isinstance(value, Path) else value, ensure_ascii=False)
    return repr(value)


def _table_schema(cls: type[Any], base: object = None) -> dict[str, Any]:
    entries = _entries(cls, base)
    required = [entry.name for entry in entries if entry.default is MISSING]
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if required:
        schema["required"] = required
    schema["properties"] = {entry.name: _value_schema(entry) for entry in entries}
    return schema


def _value_schema(entry: _Entry) -> dict[str, Any]:
    described = {"description": entry.text} if entry.text else {}
    if entry.table is not None:
        base = None if entry.default is MISSING else entry.default
        return {**described, **_table_schema(entry.table, base)}
    schema: dict[str, Any] = {**described, **_type_schema(entry.kind, entry.setting)}
    if entry.default not in (MISSING, None):
        schema["default"] = json.loads(_toml(entry.default))
    return schema


def _type_schema(kind: Any, setting: Setting) -> dict[str, Any]:  # noqa: ANN401
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        items = [_type_schema(k, setting) for k in kinds]
        return {"type": "array", "prefixItems": items, "minItems": len(kinds), "maxItems": len(kinds)}
    names = {
        "minimum": setting.at_least,
        "exclusiveMinimum": setting.above,
        "maximum": setting.at_most,
        "exclusiveMaximum": setting.below,
    }
    return {"type": SCHEMA_TYPES[kind], **{name: limit for name, limit in names.items() if limit is not None}}
