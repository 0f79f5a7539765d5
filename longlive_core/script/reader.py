"""Sorts the lines of a script into definitions (style and names) and shots, with their positions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .duration import Timing
from .header import Header, parse_header
from .shot_text import only_directives, split_bars
from .source import Line, ScriptError, SourceText, split_lines

MAX_SHOTS = 1_000
MAX_LINES = 100_000
MAX_SCRIPT_CHARACTERS = 16 * 1024 * 1024

SEPARATOR = re.compile(r"(?:-{3,}|={3,}|\*{3,}|_{3,}|[–—]+)")
DEFINITION = re.compile(r"(?P<name>[^\W\d]\w*(?:-\w+)*)\s*[:\uff1a](?P<text>.*)")
STYLE = "style"


@dataclass(slots=True)
class Entry:
    """A shot, or a definition with a `name`, while it is read; `lines` is its text so far."""

    source: Line
    lines: list[Line] = field(default_factory=list[Line])
    name: str = ""
    timing: Timing = field(default_factory=Timing)
    continues: bool = False
    text_below: bool = False  # the header has no text on its line

    @property
    def source_text(self) -> SourceText:
        """The text; if there is none, an empty text at the position of the entry."""
        return SourceText(tuple(self.lines) or (Line("", self.source.line, self.source.column),))


class Reader:
    """Sorts lines into definitions and shots. The meaning of a line depends on the lines above it:

    - above the first shot, `style: …` and `name: …` are definitions;
    - a header starts a shot; without text on its line, its text is the lines below, up to a header or separator;
    - a line indented deeper than the script continues the line above it;
    - a line that consists of directives belongs to the shot above it;
    - any other line is a shot.
    """

    def __init__(self) -> None:
        self.definitions: list[Entry] = []
        self.shots: list[Entry] = []
        self._open: Entry | None = None
        self._margin = 0
        self._below_text = False

    def read(self, text: str) -> None:
        """Reads a whole script. Raises ScriptError."""
        if len(text) > MAX_SCRIPT_CHARACTERS:
            raise ScriptError(
                f"a script of {len(text):,} characters; the limit is {MAX_SCRIPT_CHARACTERS:,}",
                remedy="split the film into several scripts",
            )
        lines = split_lines(text)
        if len(lines) > MAX_LINES:
            raise lines[MAX_LINES].error(f"a script of {len(lines):,} lines; the limit is {MAX_LINES:,}", "shorten it")
        self._margin = min((_indent(line) for line in lines if line.text.strip()), default=0)
        for line in lines:
            self._read_line(line)
        for shot in self.shots:
            if not any(line.text for line in shot.lines):
                raise shot.source.error("a shot without text", "write what it shows after its header")

    def _read_line(self, line: Line) -> None:
        content = line.slice(0)
        if not content.text:
            self._below_text = False
            return
        if content.text.startswith("#"):
            return
        if SEPARATOR.fullmatch(content.text):
            self._open, self._below_text = None, False
            return
        indented = self._below_text and _indent(line) > self._margin
        self._below_text = True
        if not self.shots and parse_header(content) is None and self._read_definition(content, indented):
            return
        for start, end in split_bars(content.text):
            if (piece := content.slice(start, end)).text:
                self._read_piece(piece, indented and start == 0, start > 0)

    def _read_definition(self, line: Line, indented: bool) -> bool:
        """Reads a definition or a continuation of one. Returns False if the line is neither."""
        if indented and self._open is not None:
            self._open.lines.append(line)
            return True
        if (match := DEFINITION.fullmatch(line.text)) is None:
            return False
        self._open = Entry(line, [line.slice(match.start("text"))], match["name"])
        self.definitions.append(self._open)
        return True

    def _read_piece(self, piece: Line, continues_line: bool, after_bar: bool) -> None:
        header = parse_header(piece)
        directives = header is None and only_directives(piece.text)
        above = None if header is not None or after_bar else self._open
        if above is not None and (continues_line or above.text_below or (directives and not above.name)):
            above.lines.append(piece)
            return
        if directives:
            raise piece.error("a directive without a shot", "write it on the line of the shot it belongs to")
        self._start(piece, header)

    def _start(self, piece: Line, header: Header | None) -> None:
        match = DEFINITION.fullmatch(piece.text) if header is None else None
        if match and match["name"].casefold() == STYLE:
            raise piece.error("a style below the first shot", "move it above the first shot: it applies to all shots")
        if len(self.shots) == MAX_SHOTS:
            raise piece.error(
                f"shot {MAX_SHOTS + 1:,}; the limit is {MAX_SHOTS:,} shots", "split the film in two scripts"
            )
        header = header or Header(piece, Timing(), False, piece)
        text = [header.text] if header.text.text else []
        self._open = Entry(piece, text, "", header.timing, header.continues, text_below=not text)
        self.shots.append(self._open)


def _indent(line: Line) -> int:
    """Returns the indentation in columns, with tab stops every 4 columns."""
    expanded = line.text.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())
