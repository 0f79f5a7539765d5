"""Warnings about text that looks like structure and is read as prompt, and about signs without a meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from .duration import shorten
from .source import Line
from .times import BARE, DECADE, timed_bracket
from .words import CHAT, HEADER_WORD, LABELS, NUMBERED, fold

NEARLY = re.compile(
    r"[\W_]{0,20}(?P<word>[^\W\d_]{2,20})\s{0,9}[#.]?\s{0,9}(?P<number>[0-9]{1,4})\s{0,9}(?=[:(\[|]|[-–—.]\s|$)"
)
# Sign, message; the whole match is quoted.
PATTERNS = (
    (re.compile(r"(?<!\\)\{[^{}|]*(?:\|[^{}|]*)+\}"), "a wildcard, which means nothing here"),
    (
        re.compile(r"<(?:lora|lyco|hypernet|embedding):[^<>]*>", re.I),
        "a LoRA tag, which loads nothing here: use --lora or LoRA nodes",
    ),
    (
        re.compile(r"(?<!\\)[(\[](?=[^()\[\]:]*[^\W\d_])[^()\[\]]{1,200}:\s?[0-9]*\.?[0-9]+[)\]]"),
        "a weight, which means nothing to the model",
    ),
    (re.compile(r"\b__[\w/*-]+__\b"), "a wildcard, which means nothing here"),
    (re.compile(r"\*\*[^*]{1,200}\*\*|```|~~~"), "markup"),
    (re.compile(r"\b(?:negative prompt|negative)\s*:", re.I), "a negative prompt: write it on a line of its own"),
    (re.compile(r"--(?:neg|ar|v|no|seed|stylize|s)\b(?:\s+\S+)?"), "an option of another program"),
)
DECADE_FIRST = re.compile(rf"[(\[]{DECADE.pattern}[)\]]", re.I)
LIST_MARK = re.compile(r"\(?[0-9]{1,3}[.)]\s")
STAMP = re.compile(r"(?<![\w:])[(\[]|(?<![\w:.,-])[0-9]")


def hints(line: Line, times: bool = True) -> Iterator[tuple[Line, str]]:
    """Yields (place, message) for what looks like structure in a line that is read as prompt.

    times: whether times in the line are part of the prompt too.
    """
    text = fold(line.text)
    if nearly := NEARLY.match(text):
        written = nearly[0].strip()
        known = get_close_matches(nearly["word"].lower(), NUMBERED.split(), 1, 0.6)
        word = known[0].capitalize() if known else "Shot"
        yield line, f"looks like a header ({shorten(written)}) and is read as prompt: write {word} {nearly['number']}:"
    elif (word := HEADER_WORD.match(text)) and len(line.text) > word.end():
        yield line, f"looks like a header ({word[0].strip()}) and is read as prompt: write {word[0].strip()}:"
    if LIST_MARK.match(text):
        yield line, "looks like a list mark and is read as prompt: leave the number out"
    label, colon, _ = text.partition(":")
    if colon and LABELS.get(label.strip().lower()) in ("time", "negative", "aside"):
        yield line, f"looks like a label ({label.strip()}) and is read as prompt: put it under the header of a shot"
    if CHAT.match(text):
        yield line, "looks like a remark on the script and is read as prompt: leave it out"
    if decade := DECADE_FIRST.match(text):
        yield line, f"{decade[0]} is read as words of the prompt: write 'Shot 1 {decade[0]}: …' for a length"
    if times:
        yield from _times_inside(line, text)
    for word in HEADER_WORD.finditer(text, 1):
        inside = not text[word.start() - 1].isalnum()
        if inside and text[word.end() : word.end() + 1] in (":", "(", "["):
            what = word[0].strip()
            yield (
                line.slice(word.start()),
                f"'{shorten(what)}' looks like a header and is read as prompt: begin a line with it",
            )
    for pattern, what in PATTERNS:
        for sign in pattern.finditer(line.text):
            yield line.slice(*sign.span()), f"'{shorten(sign[0])}' is {what}; it is kept as text"


def _times_inside(line: Line, text: str) -> Iterator[tuple[Line, str]]:
    for stamp in STAMP.finditer(text):
        at = stamp.start()
        timed = BARE.match(text, at) if text[at].isdigit() else timed_bracket(text, at)
        if timed and (text[at] in "([" or ":" in timed[0] or timed["range"]) and text[at - 1 : at] != "\\":
            what = timed[0].strip()
            if text[at - 1 : at] not in ("(", "["):
                yield line.slice(at, timed.end()), f"'{shorten(what)}' looks like a time and is read as prompt"
