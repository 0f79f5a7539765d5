"""Finds a time in a header or around a text: `(4s)`, `[4s-9s]`, `4s -`, `0:00-0:04`, a bracket behind a title."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .duration import USAGE, Timing, parse_timing, shorten
from .shot_text import closing_bracket
from .source import Line
from .words import TIME_LABELS, UNITS, fold

# Repetitions are bounded to avoid catastrophic backtracking.
_GAP = r"\s{0,9}"
_CLOCK = r"[0-9]{1,9}:[0-9]{2}(?::[0-9]{2})?(?:[:;][0-9]{2}|[.,][0-9]{1,9})?(?!:?[0-9])"
_NUMBER = r"(?:[0-9]{1,20}(?:[.,][0-9]{1,20})?|\.[0-9]{1,20})"
_LETTER = "[0-9A-Za-z\u00c0-\u024f\u0400-\u04ff]"  # of an alphabet that separates words
_UNIT = rf"(?:{'|'.join(sorted(UNITS, key=len, reverse=True))})(?!{_LETTER})\.?"
_DASH = r"(?:(?<=[^\W\d_]):|-->|->|\.\.|[-–—→~]|(?:to|until|bis|à|до)\b|至|到)"
_SIGN = rf"[-+−]?{_GAP}"
_SINGLE = rf"{_SIGN}(?:{_CLOCK}|{_NUMBER}{_GAP}{_UNIT})"
_END = rf"{_SIGN}(?:{_CLOCK}|{_NUMBER}(?:{_GAP}{_UNIT})?)"
_RANGE = rf"{_END}{_GAP}{_DASH}{_GAP}{_END}"
_CONTINUE = rf"(?:[,;]{_GAP}continue{_GAP})?"
# Outside brackets a range needs a unit or a clock: "2-3 people" is text.
_BARE_RANGE = rf"(?:{_SINGLE}{_GAP}{_DASH}{_GAP}{_END}|{_NUMBER}{_GAP}{_DASH}{_GAP}{_SINGLE})"
# "Seconds 0-4"
_SECONDS = "|".join(word for word, unit in UNITS.items() if unit == "s" and len(word) > 3)

CLOSER = re.compile(r"\s*(?::|[-–—.)](?=\s|$)|—|//|[-=]>|→|=(?=\s))\s*")
TIMED = re.compile(
    rf"{_GAP}(?:(?:about|approx\.?|ca\.?|duration|length|time|dur\.?|时长|時長)\s?:?\s|~|≈|时长[:]?)?(?P<time>{_RANGE}|{_SINGLE}){_GAP}{_CONTINUE}(?=[\]):]|$)",
    re.I,
)
BARE = re.compile(
    rf"(?:(?P<seconds>(?:{_SECONDS})\s)|(?:from|for|at)\s|t\s?=\s?|第)?"
    rf"(?P<range>(?(seconds){_RANGE}|{_BARE_RANGE}))(?!{_LETTER})"
    rf"|(?:(?:from|for)\s)?(?P<single>{_SINGLE})(?!{_LETTER})",
    re.I,
)
ITEM_SEPARATOR = re.compile(r"(?<![0-9])[,;]|[,;](?![0-9])|\s\|\s")
CONTINUE = re.compile(r"\s*(?:[,;]\s*)?continue(?![\w-])\s*", re.I)
# A length at the end of a title or a text: "(4s)", "[0s-4s]", "- 4s"; or "(4s):" between a title and a text.
LAST = re.compile(
    rf"(?<!\\)[(\[](?={TIMED.pattern})"
    rf"|(?:\s(?:[-–—,|]|[⏰-⏳🕐-🕧]\ufe0f?)\s{{1,9}}|(?:(?<=[\s.。])|[,;]\s{{0,9}})(?:{TIME_LABELS})\s?[:=]\s{{0,9}})(?P<bare>{_SINGLE}|{_BARE_RANGE})(?=\.?\s*$|\s+(?:@seed|[-–—]\s))",
    re.I,
)
SAYS_LENGTH = re.compile(r"dur|length|时长|時長", re.I)
AFTER_LAST = re.compile(r"\s*(?:$|:)|\s+(?:@seed|[-–—]\s)")
DECADE = re.compile(r"(?:1[0-9]|20)[0-9]0s", re.I)
LONG_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Found:
    """A timing and the texts before and after it."""

    timing: Timing
    continues: bool
    before: Line
    after: Line


def timed_bracket(text: str, at: int) -> re.Match[str] | None:
    """Matches the inside of a bracket at `at` of a folded text if it is a time, and not a decade such as (1960s)."""
    if text[at : at + 1] not in ("(", "["):
        return None
    timed = TIMED.match(text, at + 1)
    return None if timed is None or DECADE.fullmatch(timed["time"].strip()) else timed


def parse_group(group: Line, single_is_start: bool) -> tuple[Timing, bool, list[Line]]:
    """Parses the inside of a bracket: at most one time, whether it says `continue`, and other items of several words.

    Raises ScriptError for a second time and for an item of one word that is no time.
    """
    timing, continues, start, titles = Timing(), False, 0, list[Line]()
    several = ITEM_SEPARATOR.search(fold(group.text)) is not None
    for end, following in [
        *(match.span() for match in ITEM_SEPARATOR.finditer(fold(group.text))),
        (len(group.text), 0),
    ]:
        item = group.slice(start, end)
        if item.text.lower() == "continue":
            continues = True
        elif _is_title(item.text, several):
            titles.append(item)
        elif timing != Timing():
            raise item.error("a second length in one header", "keep one of them")
        else:
            timing = parse_timing(_without_about(item), single_is_start and not SAYS_LENGTH.match(item.text))
        start = following
    return timing, continues, titles


def _without_about(item: Line) -> Line:
    """Removes "about" in "about 4s"."""
    timed = TIMED.match(fold(item.text))
    return item.slice(timed.start("time")) if timed else item


def _is_title(text: str, several: bool) -> bool:
    """Whether an item of a bracket is words: one word of the Latin alphabet alone may be a misspelt length."""
    folded = fold(text)
    words = re.split(r"[\s-]+", folded.strip())
    if not folded[:1].isalpha() or words[-1].lower() in UNITS or TIMED.fullmatch(folded):
        return False
    return several or len(words) > 1 or not folded.isascii()


def find_time(line: Line, numbered: bool = False, at_end: bool = True) -> Found | None:
    """Finds the time at the start or the end of a text, or in a bracket with a colon behind it.

    numbered: the text stands behind `Shot 1`, so that a bracket can only be a length; else a length over a minute in
    round brackets is an error that asks. at_end: False finds a time at the start only. Raises ScriptError.
    """
    text = fold(line.text)
    if timed_bracket(text, 0):
        return _bracket(line, text, 0, numbered)
    if (bare := BARE.match(text)) and (end := _end_of_bare(text, bare)) is not None:
        timing = _bare_timing(line.slice(*bare.span("range" if bare["range"] else "single")), bool(bare["single"]))
        return Found(timing, False, line.slice(0, 0), line.slice(end))
    if not at_end:
        return None
    for last in reversed(list(LAST.finditer(text))):
        if last["bare"]:
            timing = _bare_timing(line.slice(*last.span("bare")), single=True)
            return Found(timing, False, line.slice(0, last.start()), line.slice(last.end()))
        closing = closing_bracket(text, last.start())
        if closing is not None and timed_bracket(text, last.start()) and AFTER_LAST.match(text, closing + 1):
            return _bracket(line, text, last.start(), numbered)
    return None


def _end_of_bare(text: str, bare: re.Match[str]) -> int | None:
    """The end of a time without brackets; a single one needs a colon, a dash, a comma or the end of the line behind."""
    closer = CLOSER.match(text, bare.end())
    closer = closer or re.compile(r"\s*(?:[,;|]\s*|$)").match(text, bare.end())
    if closer is None:
        return bare.end() if bare["range"] else None
    return closer.end()


def _bare_timing(source: Line, single: bool) -> Timing:
    """Parses a time without brackets; a single zero is a start."""
    text = fold(source.text)
    if single and not re.search(r"[1-9]", text):
        return parse_bare(source, start=True)
    timing = parse_timing(source, False)
    return Timing(timing.start, timing.duration, timing.note, bare=timing.start is None)


def parse_bare(source: Line, start: bool) -> Timing:
    """Parses a single time without brackets as a start or a duration, and marks it as bare."""
    timing = parse_timing(source, start)
    return Timing(timing.start, timing.duration, timing.note, bare=True)


def _bracket(line: Line, text: str, opening: int, numbered: bool) -> Found:
    """Parses `(4s)` at `opening`; with `[4s: …]` the text is inside the bracket."""
    timed = timed_bracket(text, opening)
    end = timed.end() if timed else opening + 1
    inside_text = text[end : end + 1] == ":"
    if (closing := closing_bracket(text, opening)) is None:
        remedy = "close the bracket of the header"
        if inside_text:
            remedy = "close it after the text of the shot, or before the colon as in [4s-9s]:"
        raise line.error(f"'{line.text[opening]}' is never closed", remedy, opening)
    square = text[opening] == "["
    timing, continues, _ = parse_group(line.slice(opening + 1, end if inside_text else closing), square)
    if not numbered and not square:
        _ask_about_long(line.slice(opening, closing + 1), timing)
    before, after = line.slice(0, opening), line.slice(closing + 1)
    if inside_text:
        spaced = Line(line.text[:closing] + " " + line.text[closing + 1 :], line.line, line.column)
        return Found(timing, continues, before, spaced.slice(end + 1))
    return Found(timing, continues, before, after)


def _ask_about_long(bracket: Line, timing: Timing) -> None:
    """Raises ScriptError for `(90s)` without a header: it may be a length or words."""
    length = timing.duration
    if timing.start is None and length is not None and length.unit == "s" and length.value > LONG_SECONDS:
        written = shorten(bracket.text[1:-1])
        raise bracket.error(
            f"({written}) without a header is over a minute, or words of the prompt",
            f"write 'Shot 1 ({written}): …' for a length, or \\({written}\\) for words; {USAGE}",
        )
