"""Parses the header of a shot: `Shot 1 (4s):`, `Scene 2:`, `[4s-9s]:`, `[0s: …]`, `(4s)`, `continue:`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .duration import Timing, parse_timing
from .shot_text import closing_bracket
from .source import Line

COLON = re.compile(r"\s*[:\uff1a]\s*")
# Ends a header. A dash or full stop must be followed by white space: "Shot 1.5" is not a header.
CLOSER = re.compile(r"\s*(?:[:\uff1a]|[-–—.)](?=\s|$))\s*")
WORD = re.compile(
    r"(?:shot|scene|clip|segment)(?:\s*(?:#\s*)?(?P<number>[0-9]+[a-z]?)(?!\w)|(?![\w-]))\s*", re.IGNORECASE
)
CONTINUE = re.compile(r"\s*(?:[,;]\s*)?continue(?![\w-])\s*", re.IGNORECASE)
ITEM_SEPARATOR = re.compile(r"[,;]")
# A bracket at the start of a line is a header only if a time follows: "[wide shot] a fox" is plain text.
# Repetitions are bounded to avoid catastrophic backtracking.
CLOCK_TIME = (
    r"[-+−]?\s{0,9}(?:[0-9]{1,9}:[0-9]{2}(?::[0-9]{2})?(?:\.[0-9]{1,9})?|[0-9]{0,20}\.?[0-9]{1,20})"
    r"\s{0,9}[^\W\d_]{0,12}"
)
LOOKS_TIMED = re.compile(
    rf"\s{{0,9}}{CLOCK_TIME}\s{{0,9}}(?:(?:->|\.\.|[-–—→]|to\b|until\b)\s{{0,9}}{CLOCK_TIME}\s{{0,9}})?"
    r"(?:[,;]\s{0,9}continue\s{0,9})?(?=[\]):\uff1a]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a shot and the text after it on the same line (empty if the text is on the lines below)."""

    source: Line
    timing: Timing
    continues: bool
    text: Line


def parse_header(line: Line) -> Header | None:
    """Parses the header at the start of `line`; None if the line has no header.

    Raises ScriptError for an incomplete or invalid header.
    """
    if word := WORD.match(line.text):
        return _after_word(line, word)
    if line.text[:1] in ("[", "(") and (timed := LOOKS_TIMED.match(line.text, 1)):
        if line.text[0] == "[" and COLON.match(line.text, timed.end()):
            return _around_text(line, timed.end())
        return _after_group(line, 0)
    if (word := CONTINUE.match(line.text)) and (colon := COLON.match(line.text, word.end())):
        return Header(line, Timing(), True, line.slice(colon.end()))
    return None


def _after_word(line: Line, word: re.Match[str]) -> Header | None:
    """Parses the rest after `Shot 1`: an optional group in brackets, `continue` and a colon."""
    bracket = line.text[word.end() : word.end() + 1]
    if bracket in ("(", "[") and (word["number"] or LOOKS_TIMED.match(line.text, word.end() + 1)):
        return _after_group(line, word.end())
    flag = CONTINUE.match(line.text, word.end())
    end = flag.end() if flag else word.end()
    closer = (CLOSER if word["number"] else COLON).match(line.text, end)
    if closer is None and not (word["number"] and end == len(line.text)):
        return None
    return Header(line, Timing(), flag is not None, line.slice(closer.end() if closer else end))


def _after_group(line: Line, opening: int) -> Header:
    """Parses `(4s)`, `[4s-9s]` or `(8 blocks, continue)` at `opening`, then an optional `continue`, colon and text."""
    if (closing := closing_bracket(line.text, opening)) is None:
        raise line.error(f"'{line.text[opening]}' is never closed", "close the bracket of the header", opening)
    timing, inside = _parse_group(line.slice(opening + 1, closing), line.text[opening] == "[")
    flag = CONTINUE.match(line.text, closing + 1)
    end = flag.end() if flag else closing + 1
    closer = COLON.match(line.text, end)
    if flag and closer is None and end < len(line.text):
        flag, end = None, closing + 1
    return Header(line, timing, inside or flag is not None, line.slice(closer.end() if closer else end))


def _around_text(line: Line, colon: int) -> Header:
    """Parses `[0s: the text]`, where the text is inside the bracket."""
    if (closing := closing_bracket(line.text, 0)) is None:
        raise line.error(
            "'[' is never closed", "close it after the text of the shot, or before the colon as in [4s-9s]:"
        )
    timing, continues = _parse_group(line.slice(1, colon), True)
    after_colon = line.slice(colon + 1, closing)
    if not line.slice(closing + 1).text:
        return Header(line, timing, continues, after_colon)
    spaced = Line(line.text[:closing] + " " + line.text[closing + 1 :], line.line, line.column)
    return Header(line, timing, continues, spaced.slice(colon + 1))


def _parse_group(group: Line, single_is_start: bool) -> tuple[Timing, bool]:
    """Parses the inside of a bracket: at most one time, and whether it says `continue`."""
    timing, continues, start = Timing(), False, 0
    for end in [*(separator.start() for separator in ITEM_SEPARATOR.finditer(group.text)), len(group.text)]:
        item = group.slice(start, end)
        if item.text.lower() == "continue":
            continues = True
        elif timing != Timing():
            raise item.error("a second length in one header", "keep one of them")
        else:
            timing = parse_timing(item, single_is_start)
        start = end + 1
    return timing, continues
