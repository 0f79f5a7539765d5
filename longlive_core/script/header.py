"""Parses the header of a shot: `Shot 1 (4s):`, `Scene 1, Shot 2 - 4s -`, `[Shot 1]`, `[4s-9s]:`, `0:00-0:04`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from .duration import Timing, parse_timing
from .shot_text import closing_bracket
from .source import CACHED_LINES, Line
from .times import BARE, CLOSER, CONTINUE, Found, find_time, parse_bare, parse_group, timed_bracket
from .words import FROM_IMAGE, HEADER_WORD, NEXT_WORD, SIGNS, SLUGLINE, TIME_LABELS, WORD_ALONE, fold

COMMA = re.compile(r"\s*[,;]\s*")
COLON = re.compile(r"\s*:\s*")
SEPARATOR = re.compile(
    r"\s*(?:[,;|·]\s*|(?:[-–—/]|//)\s+)?" + SIGNS.pattern + rf"(?:(?:{TIME_LABELS})\s?[:=]?\s)?", re.I
)
# What WebVTT has behind its times.
CUE_SETTINGS = re.compile(
    r"(?:(?:align:(?:start|center|end|left|right)|vertical:(?:rl|lr)|(?:position|line|size):[\d.,%a-z-]+|region:[\w-]+)\s*)+",
    re.ASCII,
)
AFTER_BARE = re.compile(r"\s|[:,;|)\]]|$")
# Between the time and the colon, as in "Shot 2 (4s) @keep=kitchen: …".
DIRECTIVES = re.compile(
    r"\s*(?P<words>@(?:seed|keep|recall)=[^\s:|{}\[\]()]*(?:\s+@(?:seed|keep|recall)=[^\s:|{}\[\]()]*)*)(?=\s*:)"
)
FIRST_CLOCK = re.compile(r"(?P<time>[0-9]{1,3}:[0-9]{2}(?:[:;][0-9]{2}){0,2})(?![0-9:.,;])\s+(?=\w)")
CLOSES = {"(": ")", "[": "]", "<": ">"}


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a shot and the texts on its line: a title before the time, the text behind it.

    `word` is the word before the number ("" for a time alone), `number` the number if it is written in digits.
    `text_below`: the text of the shot is on the lines below, because there is none here, or only a title. `note`: what
    the header names besides.
    """

    source: Line
    timing: Timing = field(default_factory=Timing)
    continues: bool = False
    texts: tuple[Line, ...] = ()
    word: str = ""
    number: int | None = None
    text_below: bool = False
    note: str = ""


# A line is parsed twice in a script, and again at every key that is pressed in another line.
@lru_cache(CACHED_LINES)
def parse_header(line: Line, clocks: bool = False) -> Header | None:
    """Parses the header at the start of `line`; None if the line has no header.

    clocks: a clock before a text, as in `0:04 a fox`, is a start. Raises ScriptError for an incomplete or wrong header.
    """
    text = fold(line.text)
    at = signs.end() if (signs := SIGNS.match(text)) else 0
    if text[at : at + 1] in CLOSES and (header := _in_brackets(line, text, at)):
        return header
    if (made := FROM_IMAGE.match(text, at)) and (
        header := _Scan(line, text, made.end()).header(line, True, "prompt", _number(made))
    ):
        return replace(header, note=_image_note(made))
    if word := HEADER_WORD.match(text, at):
        number = _number(word)
        while following := NEXT_WORD.match(text, word.end()):
            word, number = following, _number(following)
        scan = _Scan(line, text, word.end())
        spaced = not fold(word[0]).isascii() and word["word"] is None and word[0][-1:].isspace()
        return scan.header(line, True, _word(word), number, needs_closer=not spaced)
    if word := WORD_ALONE.match(text, at):
        return _Scan(line, text, word.end()).header(line, False, word[0].strip().lower(), None)
    if SLUGLINE.match(text):
        return Header(line, texts=(line,), word="slugline", text_below=True)
    return _timed(line.slice(at), clocks)


def _word(match: re.Match[str]) -> str:
    return next(
        match[name] for name in ("word", "cjk", "nth", "counted", "ordinal", "hash") if match[name] is not None
    ).lower()


def _number(match: re.Match[str]) -> int | None:
    written = next(value for name, value in match.groupdict().items() if name.endswith("number") and value)
    digits = re.match(r"[0-9]{1,6}", written)
    return int(digits[0]) if digits else None


def _image_note(made: re.Match[str]) -> str:
    image = made["image"] or made["given"]
    return f"left out '{image}': a script names no images; connect a start image to the sampler" if image else ""


def _timed(line: Line, clocks: bool) -> Header | None:
    """Parses a time at the start of a line, or `continue:`."""
    text = fold(line.text)
    if clocks and (clock := FIRST_CLOCK.match(text)):
        timing = parse_bare(line.slice(0, clock.end("time")), start=True)
        return _of_found(line, Found(timing, False, line.slice(0, 0), line.slice(clock.end())))
    if (flag := CONTINUE.match(text)) and (colon := COLON.match(text, flag.end())):
        rest = line.slice(colon.end())
        return Header(line, continues=True, texts=(rest,), text_below=not rest.text)
    found = find_time(line, at_end=False)
    return None if found is None else _of_found(line, found)


def _of_found(line: Line, found: Found) -> Header:
    scan = _Scan(found.after, fold(found.after.text), 0, found.timing, found.continues)
    scan.flag_and_closer(COLON)
    rest = scan.rest()
    if settings := CUE_SETTINGS.fullmatch(rest.text):
        note = scan.timing.note or f"left out '{settings[0].strip()}', which places a subtitle on the screen"
        scan.timing, rest = replace(scan.timing, note=note), rest.slice(settings.end())
    if HEADER_WORD.match(fold(rest.text)) and (named := parse_header(rest)) and named.timing == Timing():
        return replace(named, source=line, timing=scan.timing)  # "[0s-4s] Shot 1: a fox"
    return Header(line, scan.timing, scan.continues, (*scan.titles, rest), text_below=not rest.text)


def _in_brackets(line: Line, text: str, opening: int) -> Header | None:
    """Parses `[Shot 1]`, `[Shot 1 - 4s]` and `[Shot 1: a fox]`, with a time, a colon and a text behind."""
    closing = text.find(">", opening) if text[opening] == "<" else closing_bracket(text, opening)
    word = HEADER_WORD.match(text, opening + 1)
    if word is None or closing is None or closing < word.end() - 1:
        return None
    inner = parse_header(line.slice(opening + 1, closing))
    if inner is None or not inner.word:
        return None
    after = line.slice(closing + 1)
    scan = _Scan(after, fold(after.text), 0, inner.timing, inner.continues)
    outer = scan.header(line, True, inner.word, inner.number, needs_closer=False)
    if outer is None:
        return None
    texts = (*inner.texts, *outer.texts)
    return replace(outer, texts=texts, text_below=not any(piece.text for piece in outer.texts))


@dataclass(slots=True)
class _Scan:
    """Reads what stands behind the word of a header, from offset `at`: times, `continue`, a colon."""

    line: Line
    text: str
    at: int
    timing: Timing = field(default_factory=Timing)
    continues: bool = False
    titles: list[Line] = field(default_factory=list[Line])
    grouped: bool = False

    def header(
        self, source: Line, numbered: bool, word: str, number: int | None, needs_closer: bool = True
    ) -> Header | None:
        """Parses the rest of a header and its text; None if this is none after all."""
        while self.group(numbered) or (numbered and self.bare()):
            self.grouped = True
        closed = self.flag_and_closer(CLOSER if numbered else COLON)
        if self.grouped and not closed and (comma := COMMA.match(self.text, self.at)):
            self.at = comma.end()
        at_end = self.at >= len(self.text) and numbered
        if needs_closer and not (closed or self.grouped or at_end):
            return None
        return self._with_text(source, word, number)

    def _with_text(self, source: Line, word: str, number: int | None) -> Header:
        rest, timing, continues = self.rest(), self.timing, self.continues
        texts, below = (*self.titles, rest), not rest.text
        if timing == Timing() and (found := find_time(rest, numbered=True)):
            timing, continues = found.timing, continues or found.continues
            after = found.after
            if closer := CLOSER.match(fold(after.text)):
                after = after.slice(closer.end())
            texts = (*self.titles, found.before, after)
            below = not after.text or after.text.startswith("@")
        return Header(source, timing, continues, tuple(text for text in texts if text.text), word, number, below)

    def group(self, numbered: bool) -> bool:
        """Reads `(4s)`, `[4s-9s]` or `(8 blocks, continue)`."""
        if self.text[self.at : self.at + 1] not in ("(", "["):
            return False
        timed = timed_bracket(self.text, self.at)
        if timed is None and (not numbered or self.grouped or self.timing != Timing()):
            return False
        if self.timing != Timing():
            return False
        if (closing := closing_bracket(self.text, self.at)) is None:
            message = f"'{self.line.text[self.at]}' is never closed"
            raise self.line.error(message, "close the bracket of the header", self.at)
        inside = self.line.slice(self.at + 1, closing)
        self.timing, self.continues, titles = parse_group(inside, self.text[self.at] == "[")
        self.titles += titles
        self.at = closing + 1
        return True

    def bare(self) -> bool:
        """Reads a time without brackets, as in `, 4s` and `- 0:00-0:04`."""
        start = separator.end() if (separator := SEPARATOR.match(self.text, self.at)) else self.at
        bare = BARE.match(self.text, start)
        if bare is None or self.timing != Timing() or not AFTER_BARE.match(self.text, bare.end()):
            return False
        source = self.line.slice(*bare.span("range" if bare["range"] else "single"))
        zero = bool(bare["single"]) and not re.search("[1-9]", bare[0])
        self.timing = parse_bare(source, start=True) if zero else parse_timing(source, False)
        if bare["single"] and not zero:
            self.timing = replace(self.timing, bare=True)
        self.at = bare.end()
        if pair := re.compile(r"\s*[)\]]").match(self.text, self.at):
            self.at = pair.end()
        return True

    def flag_and_closer(self, pattern: re.Pattern[str]) -> bool:
        """Reads `continue` and a colon, or what else ends a header; returns whether it is closed.

        "continue" before other words is the beginning of the text: "Shot 1 (4s) continue walking".
        """
        self.directives()
        began, flag = self.at, CONTINUE.match(self.text, self.at)
        if flag:
            self.at = flag.end()
            self.directives()
        closer = pattern.match(self.text, self.at)
        if closer is None and flag and self.at < len(self.text):
            self.at = began
            return False
        self.continues |= flag is not None
        self.at = closer.end() if closer else self.at
        return closer is not None

    def directives(self) -> None:
        """Reads directives in front of the colon; they belong to the text of the shot."""
        if found := DIRECTIVES.match(self.text, self.at):
            self.titles.append(self.line.slice(*found.span("words")))
            self.at = found.end()

    def rest(self) -> Line:
        """What is left of the line."""
        return self.line.slice(self.at)
