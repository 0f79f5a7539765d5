"""Pieces of a script that know their position, so that every error has a line and a column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 16 * 1024 * 1024
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class ScriptError(ValueError):
    """An error in a script. `line` and `column` count from 1; `remedy` says what to write instead."""

    def __init__(self, message: str, line: int = 1, column: int = 1, remedy: str = "") -> None:
        self.line, self.column, self.remedy = line, column, remedy
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

    def error(self, message: str, remedy: str = "", at: int = 0) -> ScriptError:
        """Returns an error at offset `at` of this piece."""
        return ScriptError(message, self.line, self.column + at, remedy)


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text of one or more lines."""

    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """The lines joined with single spaces."""
        return " ".join(line.text for line in self.lines)

    def error(self, message: str, remedy: str = "", at: int = 0) -> ScriptError:
        """Returns an error at offset `at` of `text`."""
        for line in self.lines[:-1]:
            if at <= len(line.text):
                return line.error(message, remedy, at)
            at -= len(line.text) + 1
        return self.lines[-1].error(message, remedy, at)


def split_lines(text: str) -> list[Line]:
    """Splits a script at the line ends of any platform. Raises ScriptError at a control character."""
    texts = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [Line(line, number) for number, line in enumerate(texts, 1)]
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
