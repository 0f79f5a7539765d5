"""Where a text stands in the script, so that every error can point at it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 16 * 1024 * 1024
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class ScriptError(ValueError):
    """What is wrong with a script: `line` and `column` count from 1, `remedy` says what to write instead."""

    def __init__(self, message: str, line: int = 1, column: int = 1, remedy: str = "") -> None:
        self.line = line
        self.column = column
        self.remedy = remedy
        super().__init__(f"line {line}, column {column}: {message}" + (f": {remedy}" if remedy else ""))


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of one line of the script; `column` is where the piece begins."""

    text: str
    line: int
    column: int = 1

    def slice(self, start: int, end: int | None = None) -> Line:
        """The piece `text[start:end]` without the white space around it, its column kept true."""
        piece = self.text[start:end]
        lead = len(piece) - len(piece.lstrip())
        return Line(piece.strip(), self.line, self.column + start + lead)

    def error(self, message: str, remedy: str = "", at: int = 0) -> ScriptError:
        """An error at offset `at` of this piece."""
        return ScriptError(message, self.line, self.column + at, remedy)


@dataclass(frozen=True, slots=True)
class SourceText:
    """Text that may run over several lines; `text` joins them with one space each."""

    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        return " ".join(line.text for line in self.lines)

    def error(self, message: str, remedy: str = "", at: int = 0) -> ScriptError:
        """An error at offset `at` of `text`."""
        for line in self.lines[:-1]:
            if at <= len(line.text):
                return line.error(message, remedy, at)
            at -= len(line.text) + 1
        return self.lines[-1].error(message, remedy, at)


def split_lines(text: str) -> list[Line]:
    """The lines of a script, from any platform's line ends. Raises ScriptError at a control character."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found = [Line(line, number) for number, line in enumerate(lines, 1)]
    for line in found:
        if control := CONTROL.search(line.text):
            raise line.error(
                f"control character U+{ord(control[0]):04X}", "save the script as plain UTF-8 text", control.start()
            )
    return found


def read_text(path: str | Path) -> str:
    """A script's file. Raises ScriptError where it cannot be read, is too large or is no UTF-8 text."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ScriptError(f"cannot read {path}: {error.strerror or error}", remedy="check the path") from error
    if len(data) > MAX_FILE_BYTES:
        limit = f"the limit for a script is {MAX_FILE_BYTES // 2**20} MiB"
        raise ScriptError(f"{path} is too large; {limit}", remedy="give the text of the shots, not a video or model")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, start = data.count(b"\n", 0, error.start) + 1, data.rfind(b"\n", 0, error.start) + 1
        column = len(data[start : error.start].decode("utf-8")) + 1
        what = f"{path} is not a UTF-8 text file: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ScriptError(what, line, column, "save the script as plain UTF-8 text") from error
