"""Warnings about text that looks like structure and is read as prompt, and about signs without a meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

from .duration import shorten
from .source import CACHED_LINES, Fix, Line
from .times import BARE, DECADE, timed_bracket
from .words import CHAT, HEADER_WORD, LABELS, NUMBERED, fold

NEARLY = re.compile(
    r"[\W_]{0,20}(?P<word>[^\W\d_]{2,20})\s{0,9}[#.]?\s{0,9}(?P<number>[0-9]{1,4})\s{0,9}(?=[:(\[|]|[-–—.]\s|$)"
)
SIGN_BEHIND = re.compile(r"[-–—.|]\s*")
# Sign, message, and what to write instead: a template of `re.Match.expand`, or None. The whole match is quoted.
PATTERNS: tuple[tuple[re.Pattern[str], str, str | None], ...] = (
    (re.compile(r"(?<!\\)\{[^{}|]*(?:\|[^{}|]*)+\}"), "a wildcard, which means nothing here", None),
    (
        re.compile(r"<(?:lora|lyco|hypernet|embedding):[^<>]*>", re.I),
        "a LoRA tag, which loads nothing here: use --lora or LoRA nodes",
        "",
    ),
    (
        re.compile(r"(?<!\\)[(\[](?=[^()\[\]:]*[^\W\d_])(?P<text>[^()\[\]]{1,200}):\s?[0-9]*\.?[0-9]+[)\]]"),
        "a weight, which means nothing to the model",
        r"\g<text>",
    ),
    (re.compile(r"\b__[\w/*-]+__\b"), "a wildcard, which means nothing here", None),
    (re.compile(r"\*\*(?P<text>[^*]{1,200})\*\*"), "markup", r"\g<text>"),
    (re.compile(r"```|~~~"), "markup", ""),
    (
        re.compile(r"\b(?:negative prompt|negative)\s*:", re.I),
        "a negative prompt: write it on a line of its own",
        r"\n\g<0>",
    ),
    (re.compile(r"--(?:neg|ar|v|no|seed|stylize|s)\b(?:\s+\S+)?"), "an option of another program", ""),
)
DECADE_FIRST = re.compile(rf"[(\[]{DECADE.pattern}[)\]]", re.I)
LIST_MARK = re.compile(r"\(?[0-9]{1,3}[.)]\s")
STAMP = re.compile(r"(?<![\w:])[(\[]|(?<![\w:.,-])[0-9]")


class Hint(NamedTuple):
    """A remark on `place`, and what to write instead if that is known."""

    place: Line
    message: str
    fix: Fix | None = None


@lru_cache(CACHED_LINES)
def hints(line: Line, times: bool = True) -> tuple[Hint, ...]:
    """Returns remarks on what looks like structure in a line that is read as prompt.

    times: whether times in the line are part of the prompt too.
    """
    return tuple(_hints(line, times))


def _hints(line: Line, times: bool) -> Iterator[Hint]:
    text = fold(line.text)
    yield from _headers(line, text)
    if mark := LIST_MARK.match(text):
        message = "looks like a list mark and is read as prompt: leave the number out"
        yield Hint(line, message, line.fix("", 0, mark.end()))
    label, colon, _ = text.partition(":")
    if colon and LABELS.get(label.strip().lower()) in ("time", "negative", "aside"):
        message = f"looks like a label ({label.strip()}) and is read as prompt: put it under the header of a shot"
        yield Hint(line, message)
    if CHAT.match(text):
        message = "looks like a remark on the script and is read as prompt: leave it out"
        yield Hint(line, message, line.fix(f"# {line.text}"))
    if decade := DECADE_FIRST.match(text):
        message = f"{decade[0]} is read as words of the prompt: write 'Shot 1 {decade[0]}: …' for a length"
        yield Hint(line, message)
    if times:
        yield from _times_inside(line, text)
    for pattern, what, instead in PATTERNS:
        for sign in pattern.finditer(line.text):
            fix = None if instead is None else line.fix(sign.expand(instead), *sign.span())
            yield Hint(line.slice(*sign.span()), f"'{shorten(sign[0])}' is {what}; it is kept as text", fix)


def _headers(line: Line, text: str) -> Iterator[Hint]:
    """Yields remarks on what is nearly a header, at the start of a line or inside."""
    if nearly := NEARLY.match(text):
        written = nearly[0].strip()
        known = get_close_matches(nearly["word"].lower(), NUMBERED.split(), 1, 0.6)
        header = f"{known[0].capitalize() if known else 'Shot'} {nearly['number']}"
        message = f"looks like a header ({shorten(written)}) and is read as prompt: write {header}:"
        following = text[nearly.end() : nearly.end() + 1]
        sign = " " if following in ("(", "[") else "" if following == ":" else ": "
        behind = SIGN_BEHIND.match(text, nearly.end())
        fix = line.fix(header + sign, 0, behind.end() if behind else nearly.end())
        yield Hint(line, message, fix)
    elif (word := HEADER_WORD.match(text)) and len(line.text) > word.end():
        written = word[0].strip()
        message = f"looks like a header ({written}) and is read as prompt: write {written}:"
        yield Hint(line, message, line.fix(f"{line.text[: word.end()].strip()}: ", 0, word.end()))
    for word in HEADER_WORD.finditer(text, 1):
        inside = not text[word.start() - 1].isalnum()
        if inside and text[word.end() : word.end() + 1] in (":", "(", "["):
            message = f"'{shorten(word[0].strip())}' looks like a header and is read as prompt: begin a line with it"
            place = line.slice(word.start())
            yield Hint(place, message, place.fix("\n", 0, 0))


def _times_inside(line: Line, text: str) -> Iterator[Hint]:
    for stamp in STAMP.finditer(text):
        at = stamp.start()
        timed = BARE.match(text, at) if text[at].isdigit() else timed_bracket(text, at)
        if timed and (text[at] in "([" or ":" in timed[0] or timed["range"]) and text[at - 1 : at] != "\\":
            what = timed[0].strip()
            if text[at - 1 : at] not in ("(", "["):
                place = line.slice(at, timed.end())
                yield Hint(place, f"'{shorten(what)}' looks like a time and is read as prompt")
