"""Divides a line into the pieces that are shots: `a | b`, `[0s: a] [4s: b]`, and not `Shot 1 | 4s | a`."""

from __future__ import annotations

import re

from .duration import Timing
from .header import Header, parse_header
from .shot_text import closing_bracket, split_bars
from .source import Line, ScriptError
from .times import BARE, TIMED, timed_bracket
from .words import fold

# "Shot 1 | Wide | 4s | a fox"
TITLED = re.compile(rf"[^|]+(?P<title>\|[^|]+)(?P<time>\|\s{{0,9}}(?:{BARE.pattern})\s{{0,9}})\|\s")


def split_pieces(text: str) -> list[tuple[int, int]]:
    """Returns (start, end) of the shots of a line: between `|`, and `[4s: …] [8s: …]` in a row."""
    pieces: list[tuple[int, int]] = []
    folded = fold(text)
    for start, end in split_bars(text):
        at = start + len(text[start:end]) - len(text[start:end].lstrip())
        if folded[at : at + 1] == "[" and timed_bracket(folded, at):
            closing = closing_bracket(folded, at)
            while closing is not None and (following := folded.find("[", closing, end)) > 0:
                if timed_bracket(folded, following) and folded[following - 1] != "\\":
                    pieces.append((start, following))
                    start = following
                closing = closing_bracket(folded, following)
        pieces.append((start, end))
    return pieces


def without_header_bars(line: Line) -> Line:
    """Replaces the bars of "Shot 1 | 4s | a fox" by what ends a header; the columns stay."""
    text = line.text
    if text.startswith("|"):
        text = " " + text[1:]
    if (titled := TITLED.match(fold(text))) and _header_alone(line.slice(0, titled.start("title"))):
        before, behind = text[: titled.end("title")], text[titled.end() :]
        line = Line(f"{before}({text[titled.end('title') + 1 : titled.end('time')]}):{behind}", line.line, line.column)
        text = line.text
    while (bars := split_bars(text))[1:] and text[: bars[0][1]].strip():
        bar, following = bars[0][1], text[slice(*bars[1])].strip()
        if (header := _header_alone(line.slice(0, bar))) is None or not following:
            break
        sign = "," if TIMED.fullmatch(fold(following)) and header.timing == Timing() else ":"
        text = text[:bar] + sign + text[bar + 1 :]
        line = Line(text, line.line, line.column)
    return line


def _header_alone(line: Line) -> Header | None:
    """The header that a line consists of, or None."""
    try:
        header = parse_header(line)
    except ScriptError:
        return None
    return None if header is None or any(piece.text for piece in header.texts) else header
