"""Finds the structure of a script before its lines are read: headers, tables, fences, remarks around a shot list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .duration import parse_timing
from .header import FIRST_CLOCK, Header, parse_header
from .markup import SEPARATOR, Row
from .shot_text import REFERENCE
from .source import Line, ScriptError
from .tables import RULE, Table, find_table
from .words import CHAT, LEAST_FRAMES, fold

BY_FRAME = re.compile(r"(?:(?:key)?frame\s{0,9})?(?P<frame>[0-9]{1,7})\s{0,9}:\s{0,9}(?=[^\s0-9])", re.IGNORECASE)
INDEX = re.compile(r"[0-9]{1,6}")
SUBTITLES = re.compile(r"WEBVTT\b.*", re.IGNORECASE)
DEFINED = re.compile(r"(?P<name>[^\W\d]\w*(?:-\w+)*)\s*:")


@dataclass(slots=True)
class Structure:
    """What the rows of a script are, by index. `asides` are left out, `marks` are structure without text.

    `clocks`: a clock before a text is a start. `by_frame`: numbers before a colon are video frames. `referenced`: names
    in curly brackets. `headings`: headers are headings of Markdown, so that `#` begins no comment.
    """

    headers: dict[int, Header] = field(default_factory=dict[int, Header])
    table_rows: dict[int, Table] = field(default_factory=dict[int, Table])
    marks: set[int] = field(default_factory=set[int])
    asides: set[int] = field(default_factory=set[int])
    referenced: set[str] = field(default_factory=set[str])
    clocks: bool = False
    by_frame: bool = False
    headings: bool = False


def find_structure(rows: Sequence[Row], fences: Sequence[int]) -> Structure:
    """Finds the structure of all rows. `fences` are the rows that open and close blocks of code."""
    found = Structure(marks=set(fences))
    lines = [row.line for row in rows]
    found.referenced = {
        name[1].strip().casefold()
        for row in rows
        if not row.heading
        for name in REFERENCE.finditer(row.line.text)
        if name[1]
    }
    clocks = [clock for row in rows if (clock := FIRST_CLOCK.match(fold(row.line.text)))]
    found.clocks = bool(clocks) and not re.search("[1-9]", clocks[0]["time"])
    found.by_frame = _is_by_frame(rows)
    structural = _find_headers(rows, found)
    _find_tables(lines, found)
    structural |= set(found.table_rows) | {index for index, row in enumerate(rows) if row.bullet}
    if fences:
        _leave_out_around(rows, fences, structural, found)
    _find_subtitles(lines, found)
    _find_chat(rows, structural, found)
    return found


def _find_headers(rows: Sequence[Row], found: Structure) -> set[int]:
    """Finds the rows with headers, those with an error in their header included."""
    structural: set[int] = set()
    for index, row in enumerate(rows):
        line = row.line
        if not line.text or SEPARATOR.fullmatch(line.text) or index in found.marks:
            continue
        defined = DEFINED.match(fold(line.text))
        if defined and defined["name"].casefold() in found.referenced:
            continue
        if found.by_frame and (frame := BY_FRAME.match(fold(line.text))):
            timing = parse_timing(Line(frame["frame"] + "f", line.line, line.column), True)
            text = line.slice(frame.end())
            found.headers[index] = Header(line, timing, texts=(text,), text_below=not text.text)
            structural.add(index)
            continue
        try:
            header = parse_header(line, found.clocks) or (parse_header(row.raw.slice(0)) if row.heading else None)
        except ScriptError:
            if not row.heading:
                structural.add(index)
            continue
        if header is not None:
            found.headers[index] = header
            found.headings |= row.heading
            structural.add(index)
    return structural


def _is_by_frame(rows: Sequence[Row]) -> bool:
    """Whether every row begins with a frame number, as in "0: a fox", "96: it runs"."""
    written = [row for row in rows if row.line.text and not row.heading]
    frames = [match for row in written if (match := BY_FRAME.match(fold(row.line.text)))]
    numbers = [int(frame["frame"]) for frame in frames]
    if len(numbers) < 2 or len(numbers) < len(written) or numbers[0] != 0:
        return False
    return all(a < b for a, b in pairwise(numbers)) and numbers[-1] >= LEAST_FRAMES * (len(numbers) - 1)


def _find_tables(lines: Sequence[Line], found: Structure) -> None:
    found.marks |= {index for index, line in enumerate(lines) if RULE.fullmatch(line.text)}
    index = 0
    while index < len(lines):
        table = find_table(lines, index) if index not in found.marks | set(found.headers) else None
        if table is None:
            index += 1
            continue
        found.marks.add(table.first)
        for row in range(table.first + 1, table.last):
            if RULE.fullmatch(lines[row].text):
                found.marks.add(row)
            else:
                found.table_rows[row] = table
        index = table.last


def _leave_out_around(rows: Sequence[Row], fences: Sequence[int], structural: set[int], found: Structure) -> None:
    """Leaves out what surrounds blocks of code, unless it has headers too."""
    opened, inside = [*fences[::2]], set[int]()
    for first, last in zip(opened, [*fences[1::2], len(rows) - 1], strict=False):
        inside |= set(range(first, last + 1))
    if not any(rows[index].line.text for index in inside - set(fences)) or structural - inside:
        return
    for index, row in enumerate(rows):
        defined = DEFINED.match(fold(row.line.text))
        is_name = defined is not None and defined["name"].casefold() in found.referenced | {"style"}
        if index not in inside and row.line.text and not is_name and not row.heading:
            found.asides.add(index)


def _find_subtitles(lines: Sequence[Line], found: Structure) -> None:
    """Finds the numbers of subtitles, each above a line with times, and the first line of WebVTT."""
    for index in found.headers:
        header = found.headers[index]
        if index and not header.word and header.timing.start and INDEX.fullmatch(lines[index - 1].text):
            found.marks.add(index - 1)
    if lines and SUBTITLES.fullmatch(lines[0].text):
        inside = False
        for index, line in enumerate(lines):  # names of cues, NOTE and STYLE
            inside = bool(line.text) and (inside or index in found.headers)
            if line.text and not inside and index not in found.marks:
                found.asides.add(index)


def _find_chat(rows: Sequence[Row], structural: set[int], found: Structure) -> None:
    """Finds what a chat model says before and after a shot list: a remark and the rest of its paragraph."""
    first, last = min(structural, default=len(rows)), max(structural, default=-1)
    taken = found.marks | found.asides | structural
    aside, paragraph = False, False
    for index, row in enumerate(rows):
        text = row.line.text
        plain = bool(text) and index not in taken and not row.heading and not SEPARATOR.fullmatch(text)
        if first < index < last or not plain:
            aside = aside and (bool(text) or index > last) and index not in structural
            paragraph = bool(text) and not SEPARATOR.fullmatch(text) and index not in found.marks
            continue
        remark = CHAT.match(text) is not None
        introduces = text.endswith((":", "\uff1a")) and DEFINED.match(fold(text)) is None
        if structural:
            begins = remark or (introduces and index < first)
        else:
            begins = remark and introduces and any(other.line.text for other in rows[index + 1 :])
        aside = aside or (begins and (index < first or not paragraph))
        paragraph = True
        if aside:
            found.asides.add(index)
