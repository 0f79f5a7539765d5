"""Sorts the lines of a script into definitions (style and names) and shots, with their positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .duration import Timing, shorten
from .entry import STYLE, Entry
from .header import Header, parse_header
from .json_shots import json_lines, read_json
from .labels import LabelReader
from .markup import SEPARATOR, Row, is_fence, read_rows
from .pieces import split_pieces, without_header_bars
from .reading import COMMENT, NO_SHOT
from .recall import AUTO, SETTING
from .settle import settle
from .shot_text import only_directives
from .source import Line, ScriptError, split_lines
from .structure import find_structure
from .tables import Table, shot_of_row

MAX_LINES = 100_000
MAX_SCRIPT_CHARACTERS = 16 * 1024 * 1024

DEFINITION = re.compile(r"(?P<name>[^\W\d]\w*(?:-\w+)*)\s*[:\uff1a](?P<text>.*)")


class Reader(LabelReader):
    """Sorts lines into definitions and shots. The meaning of a line depends on the lines above it:

    - above the first shot, `style: …` and `name: …` are definitions;
    - a header starts a shot; without text on its line, its text is the lines below, up to a header or separator;
    - a line indented deeper than the script continues the line above it;
    - label lines and list items below a header belong to its shot;
    - a line that consists of directives belongs to the shot above it;
    - any other line is a shot, which `settle` may find to be part of another.

    `notes` and `warnings` say what else was done; `left_out` are the notes on whole lines. `lines_read` are the numbers
    of the lines whose meaning is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self._margin = 0
        self._below_text = False

    def read(self, text: str) -> None:
        """Reads a whole script. Raises ScriptError."""
        if len(text) > MAX_SCRIPT_CHARACTERS:
            raise ScriptError(
                f"a script of {len(text):,} characters; the limit is {MAX_SCRIPT_CHARACTERS:,}",
                remedy="split the film into several scripts",
            )
        self.lines = lines = split_lines(text)
        if len(lines) > MAX_LINES:
            raise lines[MAX_LINES].error(f"a script of {len(lines):,} lines; the limit is {MAX_LINES:,}", "shorten it")
        rows = read_rows(lines)
        fenced = [index for index, row in enumerate(rows) if is_fence(row)]
        if not self._read_json(lines, fenced):
            self._margin = min((_indent(line) for line in lines if line.text.strip()), default=0)
            self.structure = find_structure(rows, fenced)
            if self.structure.by_frame:
                first = next(row.line for row in rows if row.line.text)
                self.note(first, "the numbers in front of the colons are read as video frames")
            for index, row in enumerate(rows):
                self._read_row(index, row)
        settle(self)

    def _read_json(self, lines: Sequence[Line], fenced: Sequence[int]) -> bool:
        """Reads a script that is JSON, or has JSON in its first block of code."""
        first, last = (fenced[0] + 1, [*fenced, len(lines)][1]) if fenced else json_lines(lines)
        part = lines[first:last]
        found = read_json(part) if part else None
        if found is None:
            return False
        for line in (*lines[:first], *lines[last:]):
            if line.text.strip() and not line.text.strip().startswith(("```", "~~~")):
                self.note(line, NO_SHOT, left_out=True)
        self.lines_read |= {line.line for line in lines}
        for place, message in found.notes:
            self.note(place, message)
        if found.style is not None:
            self.definitions.append(Entry(found.style, [found.style], STYLE))
        self.shots = [Entry(place, texts, timing=timing, listed=True) for place, timing, texts in found.shots]
        return True

    def _read_row(self, index: int, row: Row) -> None:
        content, part = row.line, self.structure
        self.lines_read.add(row.raw.line)
        if index in part.asides:
            self.note(row.raw.slice(0), NO_SHOT, left_out=True)
            return
        if index in part.marks:
            return
        if not content.text:
            self._below_text = False
            self.skipping = "" if self.skipping == "below" else self.skipping
            return
        if index in part.table_rows:
            self._read_table_row(content, part.table_rows[index])
            return
        header = part.headers.get(index)
        if row.heading and header is None:
            self.note(row.raw.slice(0), NO_SHOT if part.headings else COMMENT, left_out=True)
            return
        if SEPARATOR.fullmatch(content.text):
            if content.text[0] == "=" and self.open is not None and self.open.header and not self.open.lines:
                return  # underlines a heading
            self.open, self._below_text, self.skipping = None, False, ""
            return
        indented = self._below_text and _indent(row.raw) > self._margin
        self._below_text = True
        if self.read_aside(content, header, indented):
            return
        if header is None and self.read_label(row):
            return
        if not self.shots and header is None and self._read_definition(content, indented):
            return
        self._read_pieces(row, header, indented)

    def _read_pieces(self, row: Row, header: Header | None, indented: bool) -> None:
        """Reads a line of shots, which `|` separates."""
        content = row.line
        if header is not None and self.structure.by_frame:
            self._start(content, header, row.bullet)
            return
        content = without_header_bars(content)
        for start, end in split_pieces(content.text):
            if (piece := content.slice(start, end)).text:
                self._read_piece(piece, indented and start == 0, start > 0, row.bullet)

    def _read_table_row(self, line: Line, table: Table) -> None:
        timing, texts, unused = shot_of_row(line, table)
        self.pieces_left_out += unused
        for cell in unused:
            self.note(cell, f"'{shorten(cell.text)}' is left out: it is no part of a shot")
        if texts:
            self.shots.append(Entry(line, texts, timing=timing, listed=True))
        elif timing != Timing():
            raise line.error("a row without a prompt", "fill in its prompt or remove the row")
        self.open = None

    def _read_definition(self, line: Line, indented: bool) -> bool:
        """Reads a definition or a continuation of one. Returns False if the line is neither."""
        if indented and self.open is not None:
            self.open.lines.append(line)
            return True
        if (match := DEFINITION.fullmatch(line.text)) is None:
            return False
        self.open = Entry(line, [line.slice(match.start("text"))], match["name"])
        self.definitions.append(self.open)
        return True

    def _read_piece(self, piece: Line, continues_line: bool, after_bar: bool, listed: bool) -> None:
        header = parse_header(piece, self.structure.clocks)
        directives = header is None and only_directives(piece.text)
        above = None if header is not None or after_bar else self.open
        if above is not None and (continues_line or above.text_below or (directives and not above.name)):
            above.lines.append(piece)
            return
        if directives:
            raise piece.error("a directive without a shot", "write it on the line of the shot it belongs to")
        if header is None or not self._join_headers(header):
            self._start(piece, header, listed)

    def _join_headers(self, header: Header) -> bool:
        """Joins "Shot 1" and a line with its time, in either order. Returns False if the header is another shot's."""
        shot = self.open
        if shot is None or shot.header is None or any(line.text for line in shot.lines):
            return False
        above = shot.header
        if above.word and not header.word and shot.timing == Timing() and header.timing != Timing():
            shot.timing, shot.continues = header.timing, shot.continues or header.continues
        elif header.word and not above.word and above.timing != Timing() and header.timing == Timing():
            shot.header, shot.continues = replace(header, timing=above.timing), shot.continues or header.continues
        else:
            return False
        shot.lines += [text for text in header.texts if text.text]
        shot.text_below = header.text_below or not shot.lines
        return True

    def _start(self, piece: Line, header: Header | None, listed: bool) -> None:
        match = DEFINITION.fullmatch(piece.text) if header is None else None
        if match and match["name"].casefold() == STYLE:
            raise piece.error("a style below the first shot", "move it above the first shot: it applies to all shots")
        if match and (match["name"].casefold(), match["text"].strip().casefold()) == (SETTING, AUTO):
            raise piece.error("'recall: auto' below the first shot", "move it above the first shot")
        texts = [piece] if header is None else [text for text in header.texts if text.text]
        timing = Timing() if header is None else header.timing
        below = header is not None and (header.text_below or not texts)
        continues = header is not None and header.continues
        self.open = Entry(piece, texts, "", timing, continues, below, header, listed=listed)
        self.shots.append(self.open)


def _indent(line: Line) -> int:
    """Returns the indentation in columns, with tab stops every 4 columns."""
    expanded = line.text.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())
