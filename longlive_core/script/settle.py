"""Settles what single lines could not tell: the numbers of headers, times without brackets, names that no shot uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from .duration import Timing, shorten
from .entry import MAX_SHOTS, STYLE, Entry, ScriptState
from .header import parse_header
from .reading import NO_SHOT
from .source import Line, ScriptError
from .times import LONG_SECONDS
from .words import HEADER_WORD, LABELS, WORD_ALONE, fold

EXAMPLE = "write it as in 'Shot 1 (4s): …', or indent it to make it part of the shot above"


def settle(reader: ScriptState) -> None:
    """Settles the shots of a script. Raises ScriptError for a shot without text and for more than the limit."""
    _merge_words_alone(reader)
    _drop_groups(reader)
    _apply_numbers(reader)
    _settle_bare_times(reader.shots)
    if len(reader.shots) > MAX_SHOTS:
        message = f"shot {MAX_SHOTS + 1:,}; the limit is {MAX_SHOTS:,} shots"
        raise reader.shots[MAX_SHOTS].source.error(message, "split the film in two scripts")
    for shot in reader.shots:
        if shot.timing.note:
            reader.note(shot.source, shot.timing.note)
        if shot.header and shot.header.note:
            reader.note(shot.source, shot.header.note)
        if not any(line.text for line in shot.lines):
            raise shot.source.error("a shot without text", "write what it shows after its header")
    _empty_definitions(reader)
    _ask_about_first_start(reader.shots)


def _ask_about_first_start(shots: Sequence[Entry]) -> None:
    """Raises ScriptError for "[90s] …" as the first shot: a start, a length or words."""
    first = shots[0] if shots else None
    start = first.timing.start if first and not (first.header and first.header.word) else None
    if first and start and not first.timing.duration and start.unit == "s" and start.value > LONG_SECONDS:
        message = f"the first shot starts at {start}: this may be a length, or words of the prompt"
        raise first.source.error(message, f"write 'Shot 1 ({start}): …' for a length, or \\[{start}\\] for words")


def _merge_words_alone(reader: ScriptState) -> None:
    """Makes "Shot: wide" below "Scene 1: …" a label of it, if it is the only one there."""
    kept: list[Entry] = []
    for shot, following in zip(reader.shots, [*reader.shots[1:], None], strict=False):
        above = kept[-1].header if kept else None
        is_label = _is_word_alone(shot) and shot.timing == Timing() and not (following and _is_word_alone(following))
        if (
            not is_label
            or above is None
            or above.word in ("", "slugline", shot.header.word if shot.header else "")
            or _is_word_alone(kept[-1])
        ):
            kept.append(shot)
        elif any(line.text for line in kept[-1].lines):
            kept[-1].lines += [shot.source, *(line for line in shot.lines if line.line != shot.source.line)]
        else:
            kept[-1].lines += shot.lines
    reader.shots = kept


def _is_word_alone(shot: Entry) -> bool:
    """Whether a header is a word without a number, as in "Shot: …"."""
    text = fold(shot.source.text)
    return shot.header is not None and WORD_ALONE.match(text) is not None and HEADER_WORD.match(text) is None


def _drop_groups(reader: ScriptState) -> None:
    """Leaves out headings such as "Scene 1: The Forest" above "Shot 1: …", and times that belong to no shot."""
    shots, groups = reader.shots, set[str]()
    for shot, following in pairwise(shots):
        if _heads(shot, following) and following.header and following.header.number == 1:
            groups.add(shot.header.word if shot.header else "")
    kept: list[Entry] = []
    for shot, following in zip(shots, [*shots[1:], None], strict=False):
        if following and shot.header and shot.header.word in groups and _heads(shot, following):
            reader.note(shot.source, "left out: it heads the shots below", left_out=True)
        elif shot.labelled and not shot.lines:
            reader.note(shot.source, "left out: it belongs to no shot", left_out=True)
        else:
            kept.append(shot)
    reader.shots = kept


def _heads(shot: Entry, following: Entry) -> bool:
    """Whether a header without a time stands directly above one with another word."""
    a, b = shot.header, following.header
    if a is None or b is None or not a.word or not b.word or shot.timing != Timing():
        return False
    return a.word != b.word and a.word != "slugline" and all(line.line == shot.source.line for line in shot.lines)


def _apply_numbers(reader: ScriptState) -> None:
    """Decides by the numbers of headers whether plain lines count as shots or belong to the shot above.

    "Shot 1: The Arrival", "A fox arrives.", "Shot 2: …": the second line is no shot, and in front of shot 1 none is.
    """
    belongs, counts, plain, above = False, False, 0, None
    for shot in reader.shots:
        number = shot.header.number if shot.header and shot.header.word else None
        if number is None:
            plain += shot.header is None and not shot.listed and not shot.labelled
            above = None if shot.header is not None else above
            continue
        expected = 0 if above is None else above
        if plain:
            belongs |= number == expected + 1
            counts |= number == expected + 1 + plain
        plain, above = 0, number
    if (belongs and not counts) or _times_go_on(reader.shots):
        _merge_plain(reader)
        return
    for above, shot in zip([None, *reader.shots], reader.shots, strict=False):
        if shot.header is None and not (shot.listed or shot.labelled) and above and above.header and above.header.word:
            reader.warn(shot.source, f"has no header and is read as a shot of its own: {EXAMPLE}")


def _times_go_on(shots: Sequence[Entry]) -> bool:
    """Whether a time begins where the one above ended, although plain lines are between them."""
    plain, end = False, None
    for shot in shots:
        if shot.header is None:
            plain |= not shot.listed and not shot.labelled
            continue
        start, duration = shot.timing.start, shot.timing.duration
        if plain and start is not None and start == end:
            return True
        plain, end = False, start + duration if start and duration and start.unit == duration.unit else None
    return False


def _merge_plain(reader: ScriptState) -> None:
    kept: list[Entry] = []
    for shot in reader.shots:
        if shot.header is not None or shot.listed or shot.labelled:
            kept.append(shot)
        elif not kept:
            reader.note(shot.source, "left out: it is no shot, because a shot 1 follows", left_out=True)
            for line in shot.lines[1:]:
                reader.note(line, "left out: it is no shot, because a shot 1 follows", left_out=True)
        else:
            kept[-1].lines += shot.lines
            why = "because the numbers or times of the headers go on without it"
            reader.note(shot.source, f"has no header and belongs to shot {len(kept)}, {why}")
    reader.shots = kept


def _settle_bare_times(shots: Sequence[Entry]) -> None:
    """Single times without brackets are starts if the first is zero, else lengths."""
    bare = [shot for shot in shots if shot.timing.bare]
    if not bare or bare[0].timing.start is None:
        return
    for shot in bare:
        if shot.timing.start is None:
            shot.timing = replace(shot.timing, start=shot.timing.duration, duration=None)


def _empty_definitions(reader: ScriptState) -> None:
    """Leaves out a line such as "Script:" above a header; without headers it stays and is an error."""
    for entry in list(reader.definitions):
        if not any(line.text for line in entry.lines) and entry.name.casefold() != "style" and reader.has_headers:
            reader.definitions.remove(entry)
            reader.note(entry.source, NO_SHOT, left_out=True)


def settle_unused_names(reader: ScriptState, used: set[str]) -> None:
    """Makes shots of definitions that nothing uses, if the script has no headers; else warns.

    used: the case-folded names that texts refer to. Raises ScriptError where that would be read otherwise next time.
    """
    unused = [entry for entry in reader.definitions if entry.name.casefold() not in used | {STYLE}]
    for entry in unused:
        name = shorten(entry.name)
        if _is_structure(entry.name):
            remedy = "use it in a shot, or give it another name"
            raise entry.source.error(f"'{name}: …' is a named thing, but no shot uses {{{name}}}", remedy)
        if reader.has_headers or not reader.shots:
            remedy = f"write {{{name}}} in a shot, or 'Shot 1:' before the line to make it one"
            reader.warn(entry.source, f"'{name}: …' is a named thing, but no shot uses {{{name}}}: {remedy}")
            continue
        reader.definitions.remove(entry)
        below = [line for line in entry.lines if line.line != entry.source.line]
        reader.shots.append(Entry(entry.source, [entry.source, *below]))
        reader.warn(
            entry.source, f"no shot uses {{{name}}}, and the line is read as a shot: define only what shots use"
        )
    reader.shots.sort(key=lambda shot: (shot.source.line, shot.source.column))


def _is_structure(name: str) -> bool:
    """Whether `name: …` would be read as a label or a header if nothing used the name."""
    try:
        header = parse_header(Line(f"{name}: x", 1))
    except ScriptError:
        return True
    return header is not None or LABELS.get(name.lower(), "other") not in ("other", "start", "end", "frame")
