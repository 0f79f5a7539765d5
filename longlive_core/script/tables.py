"""Reads shot lists in tables: Markdown, tab-separated and comma-separated."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .duration import Timing, parse_number, parse_timing, unit_of
from .header import parse_header
from .source import Line
from .times import BARE, parse_bare
from .words import HEADER_WORD, LABELS, WORD_ALONE, fold

RULE = re.compile(r"\|?\s{0,99}:?-{2,}:?\s{0,99}(?:\|\s{0,99}:?-{2,}:?\s{0,99})+\|?")
IS_NUMBER = re.compile(rf"(?:#?\s?[0-9]{{1,4}}[a-z]?\.?|{HEADER_WORD.pattern})", re.IGNORECASE)
SEPARATORS = ("|", "\t", ",", ";")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows [first, last) of a table whose head has a column of prompts. `columns` are (name, role) pairs."""

    first: int
    last: int
    separator: str
    columns: tuple[tuple[str, str], ...]


def find_table(rows: Sequence[Line], first: int) -> Table | None:
    """The table whose head is the row `first`, or None."""
    for separator in SEPARATORS:
        if separator not in rows[first].text:
            continue
        ruled = first + 1 < len(rows) and RULE.fullmatch(rows[first + 1].text)
        if separator == "|" and not ruled:
            continue
        columns = tuple((cell.text, _role(cell.text)) for cell in cells(rows[first], separator))
        if len(columns) < 2 or not any(role == "text" for _, role in columns):
            continue
        if not ruled and not all(role for _, role in columns):
            continue
        last = first + 1
        while last < len(rows) and separator in rows[last].text:
            last += 1
        return Table(first, last, separator, columns)
    return None


def cells(row: Line, separator: str) -> list[Line]:
    """Splits a row into its cells; quotes may surround a cell of comma-separated values."""
    if separator in ",;":
        found, at = list[Line](), 0
        try:
            values = next(csv.reader([row.text], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:
            values = row.text.split(separator)
        for value in values:
            start = max(row.text.find(value, at), at)
            found.append(row.slice(start, start + len(value)))
            at = start + len(value)
        return found
    start = 1 if separator == "|" and row.text.startswith("|") else 0
    end = len(row.text) - 1 if separator == "|" and row.text.endswith("|") and len(row.text) > 1 else len(row.text)
    found = list[Line]()
    for part in re.finditer(rf"(?:[^\\{separator}]|\\.)*(?:{re.escape(separator)}|$)", row.text[start:end]):
        found.append(row.slice(start + part.start(), start + part.end()))
        if part.end() == end - start and not part[0].endswith(separator):
            break
    return [Line(cell.text.removesuffix(separator).rstrip(), cell.line, cell.column) for cell in found]


def shot_of_row(row: Line, table: Table) -> tuple[Timing, list[Line], list[Line]]:
    """Returns time, texts and unused cells of a row. Raises ScriptError for a time that cannot be read."""
    timing, texts, others, unused = Timing(), list[Line](), list[Line](), list[Line]()
    for index, cell in enumerate(cells(row, table.separator)):
        name, role = table.columns[index] if index < len(table.columns) else ("", "other")
        if not cell.text or (role == "number" and IS_NUMBER.fullmatch(fold(cell.text))):
            continue
        if role == "number" and (header := parse_header(cell)):
            timing = header.timing if timing == Timing() else timing
            texts += header.texts
        elif role == "time" and timing == Timing():
            timing = time_of(cell, unit_of(re.sub(r".*\((.*)\)$", r"\1", fold(name).strip())))
        elif role in ("text", "number", "time"):
            texts.append(cell)
        elif role in ("negative", "aside"):
            unused.append(cell)
        else:
            others += [Line(f"{name}:", row.line, 0), cell]  # column 0: not in the row if name else [cell]
    return timing, texts + others, unused


def time_of(cell: Line, unit: str | None = None) -> Timing:
    """Parses a time that a label or a column announces: `4s`, `4`, `0:00-0:04`, `[0s-4s]`. Raises ScriptError.

    unit: that of numbers without one, if the announcement names it.
    """
    inner = cell.slice(1, -1) if re.fullmatch(r"[(\[].*[)\]]", fold(cell.text)) else cell
    bare = BARE.fullmatch(fold(inner.text))
    if bare and bare["single"] and not re.search("[1-9]", inner.text):
        return parse_bare(inner, start=True)
    if bare and bare["single"]:
        timing = parse_timing(inner, False)
        return Timing(timing.start, timing.duration, timing.note, bare=":" in bare[0])
    return parse_number(inner, unit)


def _role(head: str) -> str:
    folded = fold(head).strip().lower()
    if folded in ("#", "no", "no.", "nr", "nr.", "序号", "镜号", "番号", "번호") or WORD_ALONE.fullmatch(folded):
        return "number"
    role = LABELS.get(re.sub(r"\s*\(.*\)$", "", folded.replace("_", " ")), "")
    return role or ("number" if HEADER_WORD.fullmatch(folded + " 1") else "")
