"""Reads through the markup of lines: quotes, bullets, numbers, headings, emphasis, zero-width characters, fences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .source import Line
from .words import HEADER_WORD, SIGN, fold

SEPARATOR = re.compile(r"(?:-{3,}|={3,}|\*{3,}|_{3,}|[–—]+|(?:[-*_]\s){2,}[-*_])")
FENCE = re.compile(r"\s*(?:>\s?)*(?:```|~~~)\s*[\w+-]*\s*")
MARK = re.compile(
    r"[\s\u200b\u200c\u200d\u2060\ufeff]*(?:"
    r"(?P<quote>>)|(?P<bullet>(?:[-*+•●◦▪‣・–—]\s+)(?:\[[ xX]\]\s+)?)|(?P<heading>#{1,6}(?=\s|[^\w#]|$))"
    r"|(?P<tag><(?:b|strong|i|em|p|li|ul|ol|div|span|u|h[1-6])>)"
    r"|"
    + rf"(?:{SIGN}\s{{0,3}}){{0,4}}"
    + r"(?P<emphasis>\*{1,3}|_{2,3}(?![\w*/-]+__)|`{1,2}|~~)(?=[^\s*_`~])|$)|[\u200b\u200c\u200d\u2060\ufeff]+"
)
# A bracket in italics behind a header, as in "**Shot 1** *(4s)*".
IN_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3})(?=[(\[])[^*_]{1,200}[)\]]\1")
MAX_MARKS = 8
TAG = re.compile(r"</?(?:b|strong|i|em|p|li|ul|ol|div|span|u|h[1-6]|br)\s*/?>")
NUMBER = re.compile(
    r"\(?(?P<number>[0-9]{1,3})(?:[.):、\uff1a\uff09]|\s-|\ufe0f?\u20e3)(?:\s+(?=\S)|(?<=[、\uff1a\uff09\u20e3]))|(?P<circled>[①-⑳])\s*"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line without its markup. `raw` is the line as written.

    `bullet`: the line had a list mark. `heading`: it had `#`, as a heading or a comment has.
    """

    line: Line
    raw: Line
    bullet: bool = False
    heading: bool = False


def read_rows(lines: Sequence[Line]) -> list[Row]:
    """Removes the markup at the start of every line; numbers are list marks where they count 1, 2, 3, …"""
    rows = [_strip(Row(line.slice(0), line)) for line in lines]
    for index, mark in _counted(rows):
        rows[index] = _strip(replace(rows[index], line=rows[index].line.slice(mark.end()), bullet=True))
    return rows


def is_fence(row: Row) -> bool:
    """Whether the line opens or closes a block of code."""
    return FENCE.fullmatch(row.raw.text) is not None


def _strip(row: Row) -> Row:
    """Removes the marks from the start of a row."""
    line, bullet, heading = row.line, row.bullet, row.heading
    for _ in range(MAX_MARKS):
        mark = None if SEPARATOR.fullmatch(line.text) else MARK.match(line.text)
        if mark is None or not mark.end():
            break
        if mark["tag"]:
            blank = Line(TAG.sub(lambda tag: " " * len(tag[0]), line.text), line.line, line.column)
            line = blank.slice(0)
            continue
        if run := mark["emphasis"]:
            if line.text.count(run, mark.end()) < 1:
                break
            # Spaces keep the offsets.
            blank = Line(line.text.replace(run, " " * len(run)), line.line, line.column)
            line = blank.slice(0)
            continue
        bullet, heading = bullet or mark["bullet"] is not None, heading or mark["heading"] is not None
        line = line.slice(mark.end())
    if (word := HEADER_WORD.match(fold(line.text))) and (marked := IN_EMPHASIS.match(line.text, word.end())):
        inner = marked[0].replace(marked[1], " " * len(marked[1]))
        line = Line(line.text[: word.end()] + inner + line.text[marked.end() :], line.line, line.column)
    return Row(line, row.raw, bullet, heading)


def _counted(rows: Sequence[Row]) -> list[tuple[int, re.Match[str]]]:
    """The list numbers of rows that count from 1, at least two in a row."""
    runs: list[list[tuple[int, re.Match[str]]]] = []
    for index, row in enumerate(rows):
        if mark := NUMBER.match(row.line.text):
            number = int(mark["number"]) if mark["number"] else ord(mark["circled"]) - ord("①") + 1
            if number == 1:
                runs.append([])
            if runs and number == len(runs[-1]) + 1:
                runs[-1].append((index, mark))
    return [item for run in runs if len(run) > 1 or _has_header(rows, run[0]) for item in run]


def _has_header(rows: Sequence[Row], item: tuple[int, re.Match[str]]) -> bool:
    """Whether a header stands behind a list number."""
    index, mark = item
    return (
        HEADER_WORD.match(fold(_strip(replace(rows[index], line=rows[index].line.slice(mark.end()))).line.text))
        is not None
    )
