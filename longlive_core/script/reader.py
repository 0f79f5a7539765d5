"""Sorts the lines of a script into definitions (style and names) and shots, with their positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .duration import Timing, shorten
from .header import Header, parse_header
from .json_shots import read_json
from .markup import SEPARATOR, Row, is_fence, read_rows
from .reading import Note
from .shot_text import REFERENCE, closing_bracket, only_directives, split_bars
from .source import Line, ScriptError, SourceText, split_lines
from .structure import Structure, find_structure
from .tables import Table, shot_of_row, time_of
from .times import TIMED, timed_bracket
from .words import LABELS, PARAMETERS, TRANSITION, fold

MAX_SHOTS = 1_000
MAX_LINES = 100_000
MAX_SCRIPT_CHARACTERS = 16 * 1024 * 1024

DEFINITION = re.compile(r"(?P<name>[^\W\d]\w*(?:-\w+)*)\s*[:\uff1a](?P<text>.*)")
LABEL = re.compile(r"(?P<label>[^\W\d][^:|{}\[\]()]{0,40}?)\s*(?:\([^()]{1,20}\)\s*)?:\s*(?P<value>.*)")
MAX_REMARKS = 12  # lines before JSON
LABEL_IN_BRACKETS = re.compile(r"\[(?P<label>[^\[\]:]{1,20})\]\s*:?\s*(?P<value>.*)")
STYLE = "style"


@dataclass(slots=True)
class Entry:
    """A shot, or a definition with a `name`, while it is read; `lines` is its text so far.

    `text_below`: plain lines below belong to it. `labelled`: label lines make it up, and no header.
    """

    source: Line
    lines: list[Line] = field(default_factory=list[Line])
    name: str = ""
    timing: Timing = field(default_factory=Timing)
    continues: bool = False
    text_below: bool = False
    header: Header | None = None
    labelled: bool = False
    listed: bool = False

    @property
    def source_text(self) -> SourceText:
        """The text; if there is none, an empty text at the position of the entry."""
        return SourceText(tuple(self.lines) or (Line("", self.source.line, self.source.column),))

    @property
    def structured(self) -> bool:
        """Whether lines without a header may belong to it: it has a header or labels."""
        return self.header is not None or self.labelled


class Reader:
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
        self.definitions: list[Entry] = []
        self.shots: list[Entry] = []
        self.lines: list[Line] = []
        self.notes: list[Note] = []
        self.warnings: list[Note] = []
        self.left_out: list[Note] = []
        self.lines_read: set[int] = set()
        self.structure = Structure()
        self._open: Entry | None = None
        self._margin = 0
        self._below_text = False
        self._skipping = ""

    def read(self, text: str) -> None:
        """Reads a whole script. Raises ScriptError."""
        from .settle import settle

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

    def note(self, line: Line, message: str, left_out: bool = False) -> None:
        """Adds a note on a line; one that is left out is accounted for by it."""
        note = Note(line.line, line.column, message, line.line)
        if left_out:
            self.lines_read.add(line.line)
            if self.left_out and self.left_out[-1].end_line == line.line - 1 and self.left_out[-1].message == message:
                note = replace(self.left_out.pop(), end_line=line.line)
            self.left_out.append(note)
        else:
            self.notes.append(note)

    def warn(self, line: Line, message: str) -> None:
        """Adds a warning on a line."""
        self.warnings.append(Note(line.line, line.column, message, line.line))

    def _read_json(self, lines: Sequence[Line], fenced: Sequence[int]) -> bool:
        """Reads a script that is JSON, or has JSON in its first block of code."""
        first, last = (fenced[0] + 1, [*fenced, len(lines)][1]) if fenced else _json_lines(lines)
        part = lines[first:last]
        found = read_json(part) if part else None
        if found is None:
            return False
        for line in (*lines[:first], *lines[last:]):
            if line.text.strip() and not line.text.strip().startswith(("```", "~~~")):
                self.note(line, "left out: it is no shot", left_out=True)
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
            self.note(row.raw.slice(0), "left out: it is no shot", left_out=True)
            return
        if index in part.marks:
            return
        if not content.text:
            self._below_text = False
            self._skipping = "" if self._skipping == "below" else self._skipping
            return
        if index in part.table_rows:
            self._read_table_row(content, part.table_rows[index])
            return
        header = part.headers.get(index)
        if row.heading and header is None:
            self.note(row.raw.slice(0), "left out: it is a comment", left_out=True)
            return
        if SEPARATOR.fullmatch(content.text):
            self._open, self._below_text, self._skipping = None, False, ""
            return
        indented = self._below_text and _indent(row.raw) > self._margin
        self._below_text = True
        if self._read_aside(content, header, indented):
            return
        if header is None and self._read_label(row, indented):
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
        content = _without_header_bars(content)
        for start, end in split_pieces(content.text):
            if (piece := content.slice(start, end)).text:
                self._read_piece(piece, indented and start == 0, start > 0, row.bullet)

    def _read_table_row(self, line: Line, table: Table) -> None:
        timing, texts, unused = shot_of_row(line, table)
        for cell in unused:
            self.note(cell, f"'{shorten(cell.text)}' is left out: it is no part of a shot")
        if texts:
            self.shots.append(Entry(line, texts, timing=timing, listed=True))
        elif timing != Timing():
            raise line.error("a row without a prompt", "fill in its prompt or remove the row")
        self._open = None

    def _read_aside(self, line: Line, header: Header | None, indented: bool) -> bool:
        """Reads what is no part of a shot: transitions, negative prompts, parameters of other programs."""
        if self._skipping and header is None and (indented or self._skipping == "below"):
            self.note(line, "left out: it is a negative prompt; the script has none", left_out=True)
            return True
        self._skipping = ""
        if header is None and (transition := TRANSITION.match(fold(line.text))):
            what = "left out: it is a transition, and every shot begins with a cut"
            if transition.end() == len(line.text):
                self.note(line, what, left_out=True)
                self._open = None
                return True
            if not self._open_takes_text():
                self.note(line.slice(0, transition.end()), what)
                self._start(line, Header(line, texts=(line.slice(transition.end()),)), False)
                return True
        if header is None and PARAMETERS.match(line.text):
            self.note(line, "left out: it holds parameters of another program", left_out=True)
            return True
        return False

    def _open_takes_text(self) -> bool:
        return self._open is not None and self._open.text_below and not self._open.name

    def _read_label(self, row: Row, indented: bool) -> bool:
        """Reads `Duration: 4s`, `Prompt: …`, `Camera: …`, `Negative prompt: …`. Returns False if the line is none."""
        line = row.line
        label = LABEL.fullmatch(fold(line.text)) or LABEL_IN_BRACKETS.fullmatch(fold(line.text))
        role = LABELS.get(" ".join(label["label"].lower().split())) if label else None
        if label is None or role is None or label["label"].casefold() in self.structure.referenced:
            return self._read_list_item(row)
        value, shot = line.slice(label.start("value")), self._shot_above()
        if role == "negative":
            message = "left out: it is a negative prompt; the script has none: use --negative or the node's input"
            self.note(line, message, left_out=True)
            self._skipping = "indented" if value.text else "below"
            return True
        if role == "text":
            self._read_prompt(line, value, shot)
            return True
        if role == "time" and (timing := _timing_of(value)) is not None:
            self._read_time(line, timing, shot)
            return True
        if role == "style" and label["label"].lower() != STYLE and not self.shots and value.text:
            self._open = Entry(line, [value], STYLE)
            self.definitions.append(self._open)
            return True
        if role == "film" or (role == "aside" and shot is None):
            self.note(line, "left out: it is no shot", left_out=True)
            return True
        return self._read_list_item(row, is_label=role != STYLE or (shot is not None and shot.text_below))

    def _read_list_item(self, row: Row, is_label: bool = False) -> bool:
        """Adds a list item or a label line to the shot above it, if that has a header or labels."""
        shot = self._shot_above()
        if shot is None or not (row.bullet or is_label) or (shot.header is None and row.bullet and not is_label):
            return False
        if shot.header is not None and not shot.header.word and not is_label:
            return False
        shot.lines.append(row.line)
        shot.text_below |= shot.header is not None
        return True

    def _shot_above(self) -> Entry | None:
        """The open shot, if lines can belong to it."""
        return self._open if self._open is not None and not self._open.name and self._open.structured else None

    def _read_prompt(self, line: Line, value: Line, shot: Entry | None) -> None:
        if shot is None or (shot.labelled and shot.lines):
            shot = self._open = Entry(line, labelled=True)
            self.shots.append(shot)
        if value.text:
            shot.lines.append(value)
        shot.text_below = shot.header is not None or not value.text

    def _read_time(self, line: Line, timing: Timing, shot: Entry | None) -> None:
        if shot is None or (shot.labelled and shot.timing != Timing()):
            shot = self._open = Entry(line, labelled=True, text_below=True)
            self.shots.append(shot)
        if shot.timing == Timing():
            shot.timing, shot.text_below = timing, True
        elif shot.timing != timing:
            self.note(line, "left out: the header of the shot has a time already", left_out=True)

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

    def _read_piece(self, piece: Line, continues_line: bool, after_bar: bool, listed: bool) -> None:
        header = parse_header(piece, self.structure.clocks)
        directives = header is None and only_directives(piece.text)
        above = None if header is not None or after_bar else self._open
        if above is not None and (continues_line or above.text_below or (directives and not above.name)):
            above.lines.append(piece)
            return
        if directives:
            raise piece.error("a directive without a shot", "write it on the line of the shot it belongs to")
        if header is None or not self._join_headers(header):
            self._start(piece, header, listed)

    def _join_headers(self, header: Header) -> bool:
        """Joins "Shot 1" and a line with its time, in either order. Returns False if the header is another shot's."""
        shot = self._open
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
        texts = [piece] if header is None else [text for text in header.texts if text.text]
        timing = Timing() if header is None else header.timing
        below = header is not None and (header.text_below or not texts)
        continues = header is not None and header.continues
        self._open = Entry(piece, texts, "", timing, continues, below, header, listed=listed)
        self.shots.append(self._open)


def _json_lines(lines: Sequence[Line]) -> tuple[int, int]:
    """The lines from the first one that begins JSON to the last one that may end it."""
    begins = (
        index for index, line in enumerate(lines) if re.match(r"\s*(?:[\[{]\s*(?:[\"'{\[]|$)|\"[0-9])", line.text)
    )
    if (first := next(begins, None)) is None or any(SEPARATOR.fullmatch(line.text.strip()) for line in lines[:first]):
        return 0, len(lines)
    ends = (index for index in range(len(lines) - 1, first - 1, -1) if re.search(r"[\]}\",]\s*$", lines[index].text))
    return (first, next(ends, first) + 1) if first < MAX_REMARKS else (0, len(lines))


def split_pieces(text: str) -> list[tuple[int, int]]:
    """Returns (start, end) of the shots of a line: between `|`, and `[4s: …] [8s: …]` in a row."""
    pieces: list[tuple[int, int]] = []
    for start, end in split_bars(text):
        folded, at = fold(text), start + len(text[start:end]) - len(text[start:end].lstrip())
        if folded[at : at + 1] == "[" and timed_bracket(folded, at):
            closing = closing_bracket(folded, at)
            while closing is not None and (following := folded.find("[", closing, end)) > 0:
                if timed_bracket(folded, following) and not folded[following - 1] == "\\":
                    pieces.append((start, following))
                    start = following
                closing = closing_bracket(folded, following)
        pieces.append((start, end))
    return pieces


def _without_header_bars(line: Line) -> Line:
    """Replaces the bars of "Shot 1 | 4s | a fox" by what ends a header; the columns stay."""
    text = line.text
    if text.startswith("|"):
        text = " " + text[1:]
    while (bars := split_bars(text))[1:] and text[: bars[0][1]].strip():
        bar, following = bars[0][1], text[slice(*bars[1])].strip()
        try:
            header = parse_header(line.slice(0, bar))
        except ScriptError:
            break
        if header is None or any(piece.text for piece in header.texts) or not following:
            break
        sign = "," if TIMED.fullmatch(fold(following)) and header.timing == Timing() else ":"
        text = text[:bar] + sign + text[bar + 1 :]
        line = Line(text, line.line, line.column)
    return line


def _timing_of(value: Line) -> Timing | None:
    """The time of a label, or None if it is words."""
    try:
        return time_of(value) if value.text else None
    except ScriptError:
        return None


def referenced_names(texts: Sequence[str]) -> set[str]:
    """The names in curly brackets in the texts, case-folded."""
    return {name[1].strip().casefold() for text in texts for name in REFERENCE.finditer(text) if name[1]}


def _indent(line: Line) -> int:
    """Returns the indentation in columns, with tab stops every 4 columns."""
    expanded = line.text.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())
