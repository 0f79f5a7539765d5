"""Reads shot lists in JSON: objects or strings, nested captions, prompts by frame, one object a line."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

from .duration import Timing, parse_timing, shorten
from .markup import SEPARATOR
from .source import CONTROL, Line, ScriptError
from .tables import time_of
from .words import LABELS, LEAST_FRAMES

LOOKS_JSON = re.compile(r"\s*(?:\[\s*(?:[{\"']|\[\s*[\"'{\[])|\{\s*[\"']|\{\s*\}\s*$|\[\s*\]\s*$)")
MAX_REMARKS = 12  # lines before JSON
LOOKS_SCHEDULE = re.compile(r"\s*\"[0-9][\w:.]*\"\s*:\s*\"")
EXAMPLE = 'write [{"prompt": "a red fox", "duration": 4}, …], or a shot a line, as in \'Shot 1 (4s): a red fox\''
SEARCHED = 20_000  # characters behind a value in which the next one is searched for
NUMBER_WORDS = {"shot", "scene", "clip", "cut", "segment", "name", "type", "order"}


@dataclass(slots=True)
class JsonShots:
    """The shots of a JSON text as (place, timing, texts), the style, and notes as (place, message)."""

    shots: list[tuple[Line, Timing, list[Line]]] = field(default_factory=list[tuple[Line, Timing, list[Line]]])
    style: Line | None = None
    notes: list[tuple[Line, str]] = field(default_factory=list[tuple[Line, str]])


def read_json(lines: Sequence[Line]) -> JsonShots | None:
    """Reads JSON; None if the lines do not look like it. Raises ScriptError if they do and cannot be read."""
    text = "\n".join(line.text for line in lines)
    if LOOKS_SCHEDULE.match(text):
        values = [_load(lines, "{" + text.rstrip().rstrip(",") + "}", shift=1)]
    elif not LOOKS_JSON.match(text):
        return None
    else:
        try:
            values = [_load(lines, text)]
        except ScriptError:
            written = [line for line in lines if line.text.strip()]
            if len(written) < 2 or not all(re.fullmatch(r"\s*[{\"].*[}\"],?\s*", line.text) for line in written):
                raise
            values = [_load([line], line.text.rstrip().rstrip(",")) for line in written]
    reader = _Reader(lines, text)
    try:
        for value in values:
            reader.walk(value, "")
    except RecursionError as error:
        raise lines[0].error("this looks like JSON, and is nested too deeply", EXAMPLE) from error
    if not reader.found.shots:
        raise lines[0].error("this looks like JSON, but no prompt is in it", EXAMPLE)
    return reader.found


class _Number(str):
    """A number as it is written."""


def json_lines(lines: Sequence[Line]) -> tuple[int, int]:
    """The lines from the first one that begins JSON to the last one that may end it."""
    begins = (
        index for index, line in enumerate(lines) if re.match(r"\s*(?:[\[{]\s*(?:[\"'{\[]|$)|\"[0-9])", line.text)
    )
    if (first := next(begins, None)) is None or any(SEPARATOR.fullmatch(line.text.strip()) for line in lines[:first]):
        return 0, len(lines)
    ends = (index for index in range(len(lines) - 1, first - 1, -1) if re.search(r"[\]}\",]\s*$", lines[index].text))
    return (first, next(ends, first) + 1) if first < MAX_REMARKS else (0, len(lines))


def _load(lines: Sequence[Line], text: str, shift: int = 0) -> Any:  # noqa: ANN401
    """Parses JSON. Raises ScriptError at the place of the first error."""
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number)
    except json.JSONDecodeError as error:
        line = lines[min(error.lineno, len(lines)) - 1]
        column = max(error.colno - (shift if error.lineno == 1 else 0), 1)
        message = f"this looks like JSON, and cannot be read: {error.msg.lower()}"
        raise ScriptError(message, line.line, column, EXAMPLE) from error
    except RecursionError as error:
        raise lines[0].error("this looks like JSON, and is nested too deeply", EXAMPLE) from error


class _Reader:
    """Walks JSON values. Every value becomes text or a time of a shot, the style, or a note."""

    def __init__(self, lines: Sequence[Line], text: str) -> None:
        self.found = JsonShots()
        self._lines, self._text, self._at = lines, text, 0
        self._starts = list(accumulate((len(line.text) + 1 for line in lines), initial=0))

    def walk(self, value: Any, name: str) -> None:  # noqa: ANN401
        """Finds the shots in a value."""
        if _is_text(value):
            self._shot(Timing(), [self._place(value)])
        elif (
            isinstance(value, list)
            and len(pair := cast(list[Any], value)) == 2
            and _is_text(pair[0])
            and (isinstance(pair[1], _Number))
        ):
            text = self._place(pair[0])
            self._shot(time_of(self._place(pair[1])), [text])
        elif isinstance(value, list):
            for item in cast(list[Any], value):
                self.walk(item, name)
        elif isinstance(value, dict):
            self._object(cast(dict[str, Any], value))
        elif value is not None:
            self._leave_out(name, value)

    def _object(self, value: dict[str, Any]) -> None:
        roles = {key: _role(key) for key in value}
        prompts = [key for key, role in roles.items() if role == "text" and isinstance(value[key], str)]
        if value and all(re.fullmatch(r"[0-9][\w:. -]*", key) for key in value):
            self._schedule(value)
        elif prompts and not any(_holds_shots(part) for key, part in value.items() if key not in prompts):
            self._shot_object(value, roles)
        elif value and all(isinstance(part, str) and _is_shot_key(key) for key, part in value.items()):
            for part in value.values():
                self.walk(part, "")
        else:
            for key, part in value.items():
                if roles[key] == "style" and isinstance(part, str):
                    self.found.style = self._place(part)
                elif _holds_shots(part):
                    self.walk(part, key)
                else:
                    self._leave_out(key, part)

    def _schedule(self, value: dict[str, Any]) -> None:
        """Reads prompts by video frame, `{"0": …, "96": …}`, or by time, `{"0s": …}`, `{"0-4s": …}`."""
        frames = [int(key) for key in value if key.isdecimal() and len(key) < 9]
        numbered = len(frames) == len(value) and max(frames) < LEAST_FRAMES * (len(frames) - 1)
        for key, part in value.items():
            place = self._place(key)
            if numbered:
                self.walk(part, key)
                continue
            timing = parse_timing(Line(key + "f" if key.isdecimal() else key, place.line, place.column), True)
            if isinstance(part, str):
                self._shot(timing, [self._place(part)])
            elif isinstance(part, dict) and (text := _prompt_of(cast(dict[str, Any], part))):
                rest = {name: leaf for name, leaf in cast(dict[str, Any], part).items() if leaf is not text}
                self._shot(timing, [self._place(text), *self._others(rest)])
            else:
                self._leave_out(key, part)

    def _shot_object(self, value: dict[str, Any], roles: dict[str, str]) -> None:
        timing, texts, rest, ends = Timing(), list[Line](), dict[str, Any](), dict[str, Timing]()
        for key, part in value.items():
            role = roles[key]
            if role == "text" and isinstance(part, str):
                texts.append(self._place(part))
            elif role in ("time", "frames", "start", "end", "frame") and isinstance(part, str) and part:
                timing = self._time(role, key, part, timing, ends)
            else:
                rest[key] = part
        if "start" in ends:
            start = ends["start"].start
            timing = Timing(start, timing.duration, ends["start"].note or timing.note)
        if "end" in ends and timing.start is not None:
            end = ends["end"].start
            timing = parse_timing(self._place(f"{timing.start}-{end}"), True)
        self._shot(timing, [*texts, *self._others(rest)])

    def _time(self, role: str, key: str, written: str, timing: Timing, ends: dict[str, Timing]) -> Timing:
        place = self._place(written)
        if role in ("time", "frames"):
            bare = role == "frames" and place.text.isdecimal()
            read = parse_timing(Line(f"{place.text}f", place.line, place.column), False) if bare else time_of(place)
            return read if timing == Timing() else timing
        unit = "f" if role == "frame" or "frame" in key.lower() else "s"
        number = place.text.replace(".", "", 1).isdecimal()
        ends["end" if role == "end" else "start"] = parse_timing(
            Line(place.text + unit if number else place.text, place.line, place.column), True
        )
        return timing

    def _others(self, rest: dict[str, Any]) -> list[Line]:
        """The texts of further keys, such as `camera`; what is no text of the prompt is noted."""
        texts: list[Line] = []
        for key, part in rest.items():
            if _role(key) == "seed" and isinstance(part, _Number):
                texts.append(self._place(part, "@seed="))
            elif isinstance(part, str) and part and not isinstance(part, _Number) and self._is_text(key):
                texts.append(self._place(part, f"{key}: "))
            elif part not in (None, "", [], {}):
                self._leave_out(key, part)
        return texts

    @staticmethod
    def _is_text(key: str) -> bool:
        return _role(key) in ("other", "", "style") and not _is_number_key(key)

    def _shot(self, timing: Timing, texts: list[Line]) -> None:
        self.found.shots.append((texts[0], timing, texts))

    def _leave_out(self, name: str, value: Any) -> None:  # noqa: ANN401
        if _is_number_key(name) and isinstance(value, str) and (value.isdecimal() or len(value) < 8):
            return
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        place = self._place(name)
        what = f"'{shorten(name)}: {shorten(written)}'" if name else f"'{shorten(written)}'"
        self.found.notes.append((place, f"{what} is left out: it is no part of a shot"))

    def _place(self, value: str, prefix: str = "") -> Line:
        """Returns a text as a Line at its place in the file, which the next value follows. Raises ScriptError."""
        written = json.dumps(value, ensure_ascii=False)[1:-1] or '""'
        self._at = max(self._text.find(written, self._at, self._at + len(written) + SEARCHED), self._at)
        index = min(bisect_right(self._starts, self._at) - 1, len(self._lines) - 1)
        line, column = self._lines[index], self._at - self._starts[index] + 1
        place = Line(prefix + value.replace("\n", " ").replace("\t", " ").strip(), line.line, max(column, 1))
        if control := CONTROL.search(place.text):
            raise place.error(f"control character U+{ord(control[0]):04X}", "save the script as plain UTF-8 text")
        return place


def _role(key: str) -> str:
    words = re.sub(r"[_\s-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key)).strip().lower()
    return LABELS.get(words) or LABELS.get(re.sub(r" ?(?:in )?(?:seconds?|secs?|s|frames?)$", "", words), "")


def _is_number_key(key: str) -> bool:
    return key.lower() in NUMBER_WORDS or (_role(key) == "aside" and key.lower() != "title")


def _is_shot_key(key: str) -> bool:
    return re.fullmatch(r"\W*[^\W\d_]+[\W_]*[0-9]+\W*", key) is not None


def _prompt_of(value: dict[str, Any]) -> str:
    return next((part for key, part in value.items() if _role(key) == "text" and isinstance(part, str)), "")


def _leaves(value: Any) -> Iterator[Any]:  # noqa: ANN401
    yield from cast(list[Any], value if isinstance(value, list) else list(cast(dict[str, Any], value).values()))


def _is_text(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, str) and not isinstance(value, _Number)


def _holds_shots(value: Any) -> bool:  # noqa: ANN401
    """Whether a value has a list of texts, or an object with a prompt, in it."""
    if isinstance(value, list) and value and _is_text(cast(list[Any], value)[0]):
        return True
    if isinstance(value, dict):
        shots = cast(dict[str, Any], value)
        if _prompt_of(shots) or (shots and all(key.isdecimal() and isinstance(shots[key], str) for key in shots)):
            return True
    return isinstance(value, list | dict) and any(_holds_shots(part) for part in _leaves(value))
