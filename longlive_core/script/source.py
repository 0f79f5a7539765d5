"""Pieces of a script that know their position, so that every error has a line and a column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Lines whose reading is kept, because a page sends its script again at every key: those of two long scripts.
CACHED_LINES = 2048
MAX_FILE_BYTES = 16 * 1024 * 1024
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Fix:
    """A remedy to apply: `text` instead of the characters from `column` up to `end` (not included) of `line`."""

    line: int
    column: int
    end: int
    text: str

    def apply(self, script: str) -> str:
        """Returns the script with the characters replaced."""
        lines = split_texts(script)
        row = lines[self.line - 1]
        lines[self.line - 1] = row[: self.column - 1] + self.text + row[self.end - 1 :]
        return "\n".join(lines)


class ScriptError(ValueError):
    """An error in a script. `line` and `column` count from 1; `remedy` says what to write instead.

    `fix` writes it, if there is only one thing to write. `what` is the message without its place and remedy.
    """

    def __init__(
        self, message: str, line: int = 1, column: int = 1, remedy: str = "", *, fix: Fix | None = None
    ) -> None:
        self.what, self.line, self.column, self.remedy, self.fix = message, line, column, remedy, fix
        super().__init__(f"line {line}, column {column}: {message}" + (f": {remedy}" if remedy else ""))


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of one line of a script, which starts at `column`."""

    text: str
    line: int
    column: int = 1

    def slice(self, start: int, end: int | None = None) -> Line:
        """Returns `text[start:end]` as a piece with its column, without surrounding white space."""
        piece = self.text[start:end]
        lead = len(piece) - len(piece.lstrip())
        return Line(piece.strip(), self.line, self.column + start + lead)

    def fix(self, text: str, start: int = 0, end: int | None = None) -> Fix:
        """Returns the fix that writes `text` instead of `self.text[start:end]`."""
        stop = len(self.text) if end is None else end
        return Fix(self.line, self.column + start, self.column + stop, text)

    def error(
        self, message: str, remedy: str = "", at: int = 0, *, instead: tuple[int, str] | None = None
    ) -> ScriptError:
        """Returns an error at offset `at` of this piece.

        instead: how many characters from `at` on a fix replaces, and by what.
        """
        fix = None if instead is None else self.fix(instead[1], at, at + instead[0])
        return ScriptError(message, self.line, self.column + at, remedy, fix=fix)


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text of one or more lines."""

    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """The lines joined with single spaces."""
        return " ".join(line.text for line in self.lines)

    def error(
        self, message: str, remedy: str = "", at: int = 0, *, instead: tuple[int, str] | None = None
    ) -> ScriptError:
        """Returns an error at offset `at` of `text`; see `Line.error`."""
        for line in self.lines[:-1]:
            if at <= len(line.text):
                return line.error(message, remedy, at, instead=instead)
            at -= len(line.text) + 1
        return self.lines[-1].error(message, remedy, at, instead=instead)


def split_texts(text: str) -> list[str]:
    """Splits a script at the line ends of any platform, without a byte order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def split_lines(text: str) -> list[Line]:
    """Splits a script at the line ends of any platform. Raises ScriptError at a control character."""
    lines = [Line(line, number) for number, line in enumerate(split_texts(text), 1)]
    for line in lines:
        if control := CONTROL.search(line.text):
            raise line.error(
                f"control character U+{ord(control[0]):04X}", "save the script as plain UTF-8 text", control.start()
            )
    return lines


def read_text(path: str | Path) -> str:
    """Reads the file of a script. Raises ScriptError if it cannot be read, is too large or is not UTF-8 text."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ScriptError(f"cannot read {path}: {error.strerror or error}", remedy="check the path") from error
    if len(data) > MAX_FILE_BYTES:
        message = f"{path} is too large; the limit for a script is {MAX_FILE_BYTES // 2**20} MiB"
        raise ScriptError(message, remedy="give the text of the shots, not a video or model")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, start = data.count(b"\n", 0, error.start) + 1, data.rfind(b"\n", 0, error.start) + 1
        column = len(data[start : error.start].decode("utf-8")) + 1
        what = f"{path} is not a UTF-8 text file: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ScriptError(what, line, column, "save the script as plain UTF-8 text") from error
