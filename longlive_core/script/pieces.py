"""Divides a line into the pieces that are shots: `a | b`, `[0s: a] [4s: b]`, and not `Shot 1 | 4s | a`."""

from __future__ import annotations

from .duration import Timing
from .header import parse_header
from .shot_text import closing_bracket, split_bars
from .source import Line, ScriptError
from .times import TIMED, timed_bracket
from .words import fold


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
