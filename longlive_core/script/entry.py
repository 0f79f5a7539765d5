"""A script while it is read: its definitions and shots so far, and what was noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .duration import Timing
from .header import Header
from .reading import Note
from .shot_text import REFERENCE
from .source import Fix, Line, SourceText
from .structure import Structure

MAX_SHOTS = 1_000
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


class ScriptState:
    """The definitions and shots that were read, and remarks on the lines.

    `notes` and `warnings` say what else was done; `left_out` are the notes on whole lines. `lines_read` are the numbers
    of the lines whose meaning is known. `open` is the entry that further lines may belong to.
    """

    def __init__(self) -> None:
        self.definitions: list[Entry] = []
        self.shots: list[Entry] = []
        self.lines: list[Line] = []
        self.notes: list[Note] = []
        self.warnings: list[Note] = []
        self.left_out: list[Note] = []
        self.pieces_left_out: list[Line] = []
        self.lines_read: set[int] = set()
        self.structure = Structure()
        self.open: Entry | None = None

    @property
    def has_headers(self) -> bool:
        """Whether something else than plain lines makes shots."""
        return any(shot.header is not None or shot.labelled or shot.listed for shot in self.shots)

    def note(self, line: Line, message: str, left_out: bool = False) -> None:
        """Adds a note on a line; one that is left out is accounted for by it."""
        note = _note(line, message)
        if left_out:
            self.lines_read.add(line.line)
            if self.left_out and self.left_out[-1].end_line == line.line - 1 and self.left_out[-1].message == message:
                note = replace(self.left_out.pop(), end_line=line.line)
            self.left_out.append(note)
        else:
            self.notes.append(note)

    def warn(self, line: Line, message: str, fix: Fix | None = None) -> None:
        """Adds a warning on a line. fix: what to write instead."""
        self.warnings.append(_note(line, message, fix))

    def shot_above(self) -> Entry | None:
        """Returns the open shot, if lines without a header can belong to it."""
        return self.open if self.open is not None and not self.open.name and self.open.structured else None

    def start(self, entry: Entry) -> Entry:
        """Adds a shot, to which further lines may belong."""
        self.shots.append(entry)
        self.open = entry
        return entry


def _note(line: Line, message: str, fix: Fix | None = None) -> Note:
    return Note(line.line, line.column, message, line.line, line.column + len(line.text), fix)


def referenced_names(texts: Sequence[str]) -> set[str]:
    """The names in curly brackets in the texts, case-folded."""
    return {name[1].strip().casefold() for text in texts for name in REFERENCE.finditer(text) if name[1]}
