"""Parses the text of a shot: brackets, escapes, {names} and @directives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from .duration import shorten
from .recall import Kept, read_kept, read_recalled
from .source import ScriptError, SourceText

MAX_CHARACTERS = 10_000
MAX_SEED = 2**64 - 1

# A backslash makes the next character plain text.
ESCAPE = r"\\[\\|{}\[\]()@]"
DIRECTIVE = re.compile(r"(?<!\S)@(?P<name>[^\W\d][\w-]*)(?:\s*=\s*(?P<value>[^\s|{}\[\]()]*))?")
TOKEN = re.compile(rf"{ESCAPE}|[{{}}\[\]()|]|{DIRECTIVE.pattern}")
REFERENCE = re.compile(rf"{ESCAPE}|\{{([^{{}}]*)\}}")
WILDCARD = re.compile(r"\{[^{}|]*(?:\|[^{}|]*)+\}")
PAIRS = {")": "(", "]": "[", "}": "{"}
DEPTH_CHANGE = dict.fromkeys("([{", 1) | dict.fromkeys(")]}", -1)


@dataclass(frozen=True, slots=True)
class ShotText:
    """A text with single spaces and without directives; escapes and {names} are as written.

    keeps, recalls: of the directives @keep and @recall.
    """

    text: str
    seed: int | None
    keeps: tuple[Kept, ...] = ()
    recalls: tuple[str, ...] = ()


def closing_bracket(text: str, opening: int) -> int | None:
    """Returns the offset of the bracket that closes the one at `opening`, or None."""
    depth = 0
    for token in TOKEN.finditer(text, opening):
        depth += DEPTH_CHANGE.get(token[0], 0)
        if depth == 0:
            return token.start()
    return None


def split_bars(text: str) -> list[tuple[int, int]]:
    """Returns (start, end) of the parts of `text` between `|` signs that are outside brackets and not escaped."""
    parts: list[tuple[int, int]] = []
    depth, start = 0, 0
    for token in TOKEN.finditer(text):
        depth += DEPTH_CHANGE.get(token[0], 0)
        if token[0] == "|" and depth <= 0:
            parts.append((start, token.start()))
            start = token.end()
    return [*parts, (start, len(text))]


def only_directives(text: str) -> bool:
    """Returns whether a line consists of directives only."""
    return "@" in text and not DIRECTIVE.sub("", text).strip()


def parse_text(source_text: SourceText, in_shot: bool = True, seed: int | None = None) -> ShotText:
    """Checks the brackets, extracts the directives and escapes plain `|` signs. seed: one that was read before.

    Raises ScriptError at an unbalanced bracket, an unknown or misplaced directive, and an invalid seed.
    """
    text, pieces, brackets, end = source_text.text, list[str](), list[re.Match[str]](), 0
    keeps, recalls = list[Kept](), list[str]()
    for token in TOKEN.finditer(text):
        if token["name"]:
            if not in_shot:
                message = f"'{shorten(token[0])}' outside a shot"
                raise source_text.error(message, "write it on the line of a shot", token.start())
            if token["name"] == "keep":
                keeps += read_kept(source_text, token)
            elif token["name"] == "recall":
                recalls += read_recalled(source_text, token)
            elif seed is not None:
                raise source_text.error("a second @seed in one shot", "keep one of them", token.start())
            else:
                seed = _seed(source_text, token)
            pieces += [text[end : token.start()], " "]
            end = token.end()
        elif token[0] == "|" and not brackets:
            pieces += [text[end : token.start()], "\\|"]
            end = token.end()
        elif DEPTH_CHANGE.get(token[0]) == 1:
            if token[0] == "{" and any(bracket[0] == "{" for bracket in brackets):
                raise source_text.error("a '{' inside a {name}", "write \\{ for a plain bracket", token.start())
            brackets.append(token)
        elif token[0] in PAIRS and (not brackets or brackets.pop()[0] != PAIRS[token[0]]):
            raise _unbalanced(source_text, token)
    if brackets:
        raise _unbalanced(source_text, brackets[-1])
    return ShotText(" ".join("".join([*pieces, text[end:]]).split()), seed, tuple(keeps), tuple(recalls))


def expand(text: str, names: dict[str, str], source_text: SourceText) -> str:
    """Replaces every {name} in `text` and removes the escapes; `names` maps case-folded names to their full texts.

    Raises ScriptError for an undefined name and for a result longer than MAX_CHARACTERS.
    """
    pieces, end, size = list[str](), 0, 0
    for token in REFERENCE.finditer(text):
        named = token[1]
        value = token[0][1:] if named is None else names.get(named.strip().casefold())
        if named is not None and WILDCARD.fullmatch(token[0]):
            value = token[0]  # of other programs; means nothing here and is kept as text
        if value is None:
            raise _unknown_name(source_text, token[1], names)
        pieces += [text[end : token.start()], value]
        end = token.end()
        size += len(pieces[-2]) + len(value)
        if size > MAX_CHARACTERS:  # stop here: names that use names can double in length again and again
            break
    check_size(size + len(text) - end, source_text)
    return "".join([*pieces, text[end:]])


def check_size(characters: int, source_text: SourceText) -> None:
    """Raises ScriptError if the prompt of a shot, with style and names, is longer than MAX_CHARACTERS."""
    if characters > MAX_CHARACTERS:
        raise source_text.error(
            f"a text of {characters:,} characters, style and names included; the limit is {MAX_CHARACTERS:,}",
            "shorten it or split it into several shots",
        )


def _seed(source_text: SourceText, token: re.Match[str]) -> int:
    """Reads a directive, which must be a seed. Raises ScriptError."""
    if token["name"] != "seed":
        remedy = "known directives: @seed=…, @keep=… and @recall=…; write \\@ for a plain character"
        raise source_text.error(f"unknown directive '@{shorten(token['name'])}'", remedy, token.start())
    value = token["value"] or ""
    if not value.isascii() or not value.isdigit() or len(value) > 20 or int(value) > MAX_SEED:
        limit = f"a whole number from 0 to {MAX_SEED}"
        raise source_text.error(
            f"the seed '{shorten(value)}' is not {limit}", "write for example @seed=7", token.start()
        )
    return int(value)


def _unbalanced(source_text: SourceText, token: re.Match[str]) -> ScriptError:
    partner = "opened" if token[0] in PAIRS else "closed"
    remedy = f"add the other bracket, or write \\{token[0]} for a plain character"
    message = f"unbalanced brackets: '{token[0]}' is never {partner}"
    return source_text.error(message, remedy, token.start(), instead=(1, f"\\{token[0]}"))


def _unknown_name(source_text: SourceText, name: str, names: dict[str, str]) -> ScriptError:
    references = (
        token for token in REFERENCE.finditer(source_text.text) if token[1] and token[1].split() == name.split()
    )
    at = next((token.start() for token in references), 0)
    known = ", ".join(f"{{{shorten(known)}}}" for known in list(names)[:20]) or "none"
    remedy = (
        f"define it above the first shot, as in 'hero: a red fox', or write \\{{ for a plain bracket (known: {known})"
    )
    nearest = get_close_matches(name.strip().casefold(), names, 1, 0.6)
    instead = (len(name) + 2, f"{{{nearest[0]}}}") if nearest else None
    return source_text.error(f"unknown name {{{shorten(name.strip())}}}", remedy, at, instead=instead)
