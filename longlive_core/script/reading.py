"""What a script was read as: its shots, what was left out, and what was read otherwise than it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .source import Fix, Line, split_lines

if TYPE_CHECKING:
    from .shots import Shot


NO_SHOT = "left out: it is no shot"
COMMENT = "left out: it is a comment"


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """A remark on the text from `line` and `column` (from 1) to the end of `end_line`.

    `end` is the column behind the text it is about, or 0: to the end of the line. `fix`: what to write instead, if the
    reader knows it.
    """

    line: int
    column: int
    message: str
    end_line: int
    end: int = field(default=0, compare=False)
    fix: Fix | None = field(default=None, compare=False)

    def __str__(self) -> str:
        lines = f"line {self.line}, column {self.column}"
        if self.end_line > self.line:
            lines = f"lines {self.line} to {self.end_line}"
        return f"{lines}: {self.message}"


@dataclass(frozen=True, slots=True)
class Span:
    """What became of the characters from `column` up to `end` (not included) of a line.

    `kind` is "text" (of a shot or a definition), "mark" (structure: a header, a time, a list mark, a table, JSON) or
    "note" (left out, and a note says so).
    """

    line: int
    column: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class ScriptReading:
    """How a text was read. Every character that is not blank is in one of `spans`.

    `notes` say what was left out or assumed; `warnings` say what looks like structure and is read as prompt, or the
    reverse, and what to write instead. Both are in the order of the text.
    """

    shots: tuple[Shot, ...] = ()
    notes: tuple[Note, ...] = ()
    warnings: tuple[Note, ...] = ()
    spans: tuple[Span, ...] = ()

    @property
    def remarks(self) -> tuple[Note, ...]:
        """Notes and warnings in the order of the text."""
        return tuple(sorted((*self.notes, *self.warnings)))

    def lines(self, besides: Sequence[str] = ()) -> list[str]:
        """Returns the remarks as lines of text, without those that begin with a text of `besides`."""
        kinds = [("note", note) for note in self.notes] + [("warning", warning) for warning in self.warnings]
        shown = sorted(kinds, key=lambda item: item[1])
        return [f"{kind}: {note}" for kind, note in shown if not note.message.startswith(tuple(besides))]

    def unread(self, text: str) -> list[Line]:
        """Returns the pieces of `text` that no span accounts for: there should be none."""
        characters = [list(line.text) for line in split_lines(text)]
        for span in self.spans:
            row = characters[span.line - 1]
            row[span.column - 1 : span.end - 1] = " " * len(row[span.column - 1 : span.end - 1])
        rows = [Line("".join(row), number) for number, row in enumerate(characters, 1)]
        return [row.slice(0) for row in rows if row.text.strip()]


def spans_of(
    lines: list[Line], texts: list[Line], pieces: list[Line], read: set[int], left_out: list[Note]
) -> tuple[Span, ...]:
    """Returns the spans of a script: texts, what is left out, and the marks on the lines that were `read`."""
    noted = {number for note in left_out for number in range(note.line, note.end_line + 1)}
    by_line: dict[int, list[Span]] = {}
    for piece, kind in [*((text, "text") for text in texts), *((piece, "note") for piece in pieces)]:
        if piece.text and piece.column > 0:
            span = Span(piece.line, piece.column, piece.column + len(piece.text), kind)
            by_line.setdefault(piece.line, []).append(span)
    spans: list[Span] = []
    for line in lines:
        at, rest = 1, "note" if line.line in noted else "mark" if line.line in read else ""
        for span in sorted(by_line.get(line.line, []), key=lambda span: span.column):
            if rest and span.column > at:
                spans.append(Span(line.line, at, span.column, rest))
            spans.append(span)
            at = max(at, span.end)
        if rest and at <= len(line.text):
            spans.append(Span(line.line, at, len(line.text) + 1, rest))
    return tuple(spans)
