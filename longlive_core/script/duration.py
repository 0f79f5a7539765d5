"""Parses lengths and times: 4s, 96f, 3 blocks, 0:12, 4s-9s."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction

from .source import Line
from .words import UNITS, fold

MAX_SECONDS = 24 * 3600
# Limits while the frame rate is unknown: 24 h at 240 frames per second, and 24 h of 32-frame blocks at 24.
LIMITS = {"s": MAX_SECONDS, "f": MAX_SECONDS * 240, "blocks": MAX_SECONDS * 24 // 32}
NAMES = {"s": "seconds", "f": "video frames", "blocks": "blocks"}
USAGE = "write 4s, 96f (video frames) or 3 blocks"
MAX_DIGITS = 16
MAX_WRITTEN = 64

# Clocks such as 0:12, 1:02:03.5, 00:00:04,000 (SRT) and 00:00:04:12 (SMPTE: the last pair counts frames).
TIME = re.compile(
    r"""(?P<sign>[-+−]?)\s*
        (?: (?P<clock>(?:[0-9]+:)?[0-9]+:[0-9]{2})(?:[:;](?P<frames>[0-9]{2})|(?P<fraction>[.,][0-9]+))?
          | (?P<number>[0-9]+(?:[.,][0-9]+)?|\.[0-9]+) )
        \s*(?P<unit>[^\W\d_]*)\.?""",
    re.VERBOSE,
)
DASH = r"\s*(?:(?<=[^\W\d_]):|-->|->|\.\.|[-–—→~]|\b(?:to|until|bis|à|до)\b|至|到)\s*"
RANGE = re.compile(rf"([-+−]?\s*[0-9:;.,]*[0-9]\s*[^\W\d_]*?){DASH}(.+)")
SMPTE_RATE = 24


@dataclass(frozen=True, slots=True)
class Length:
    """A length, or a time from the start of the film: `value` in `unit` (s, f for video frames, or blocks)."""

    value: Decimal
    unit: str

    def __str__(self) -> str:
        number = format(self.value.normalize(), "f")
        return number + (self.unit if self.unit != "blocks" else " block" if self.value == 1 else " blocks")

    def __add__(self, other: Length) -> Length:
        """Adds two lengths. Raises ValueError if their units differ."""
        if other.unit != self.unit:
            raise ValueError(f"{self} and {other} are in different units")
        return Length(self.value + other.value, self.unit)

    def frames(self, fps: Fraction, block_video_frames: int) -> Fraction:
        """Converts to video frames, with `block_video_frames` per block."""
        per_unit = {"s": fps, "f": Fraction(1), "blocks": Fraction(block_video_frames)}
        return Fraction(self.value) * per_unit[self.unit]


@dataclass(frozen=True, slots=True)
class Timing:
    """The times in the header of a shot: its start in the film, its duration, both, or neither.

    `note`: what had to be assumed. `bare`: one time without brackets, a duration here, but a start if the first one in
    the script is zero.
    """

    start: Length | None = None
    duration: Length | None = None
    note: str = field(default="", compare=False)
    bare: bool = field(default=False, compare=False)


def parse_timing(source: Line, single_is_start: bool) -> Timing:
    """Parses one time, `4s`, or a range, `4s-9s`. One time is a start in `[4s]` and a duration in `(4s)`.

    Raises ScriptError for other text and for a length that is zero, negative or beyond 24 h.
    """
    if len(source.text) > MAX_WRITTEN:
        raise source.error(f"'{shorten(source.text)}' is not a length", USAGE)
    source = Line(fold(source.text), source.line, source.column)
    ends = RANGE.fullmatch(source.text)
    if ends is not None:
        return _parse_range(source, source.slice(0, ends.end(1)), source.slice(ends.start(2)))
    time = _parse_time(source, None)
    if single_is_start:
        return Timing(start=time, note=_smpte_note(source))
    if time.value == 0:
        raise source.error(f"a shot of {time} has no length", f"give it at least one block; {USAGE}")
    return Timing(duration=time, note=_smpte_note(source))


def parse_number(source: Line, unit: str | None) -> Timing:
    """Parses a duration that may lack its unit: it is `unit` then, or seconds with a note. Raises as `parse_timing`."""
    with_unit = Line(f"{source.text}{unit or 's'}", source.line, source.column)
    if source.text.replace(".", "", 1).isdecimal():
        note = "" if unit else f"'{shorten(source.text)}' has no unit and is read as seconds"
        return replace(parse_timing(with_unit, False), note=note)
    ends = RANGE.fullmatch(fold(source.text))
    if unit and ends and not any(re.search(r"[^\W\d_]|:", ends[end]) for end in (1, 2)):
        return parse_timing(with_unit, False)
    return parse_timing(source, False)


def unit_of(text: str) -> str | None:
    """The unit that a text is, as in "frames"; "s", "min", "f" or "blocks"."""
    return UNITS.get(text.strip().rstrip(".").lower())


def _parse_range(source: Line, first: Line, last: Line) -> Timing:
    """Parses `4s-9s`; an end without a unit has the unit of the other, and a range without any is in seconds."""
    units = [match["unit"] or match["clock"] if (match := TIME.fullmatch(end.text)) else "?" for end in (first, last)]
    written, note = TIME.fullmatch(last.text), _smpte_note(source)
    default = "s"
    if any(units):
        default = UNITS.get(written["unit"].lower()) if written else None
    else:
        note = f"'{source.text}' has no unit and is read as seconds"
    start = _parse_time(first, default)
    end = _parse_time(last, start.unit)
    if start.value == 0:
        start = Length(start.value, end.unit)
    if start.unit != end.unit:
        raise source.error(f"'{shorten(source.text)}' mixes {NAMES[start.unit]} and {NAMES[end.unit]}", "use one unit")
    if end.value <= start.value:
        raise source.error(f"'{shorten(source.text)}' ends before it starts", "write the start first, as in [4s-9s]")
    return Timing(start, Length(end.value - start.value, end.unit), note)


def _smpte_note(source: Line) -> str:
    if any(time["frames"] for time in TIME.finditer(source.text)):
        return f"'{shorten(source.text)}': the last pair of digits counts frames, {SMPTE_RATE} in a second"
    return ""


def _parse_time(source: Line, default_unit: str | None) -> Length:
    """Parses one time. A clock such as 0:12 is in seconds; zero needs no unit."""
    match = TIME.fullmatch(source.text)
    if match is None:
        raise source.error(f"'{shorten(source.text)}' is not a length", USAGE)
    value = _value(match["clock"] or match["number"], source)
    if match["fraction"]:
        value += _value("0" + match["fraction"], source)
    if match["frames"]:
        value += _frames(match["frames"], source)
    if match["sign"] not in ("", "+") and value:
        raise source.error(f"'{shorten(source.text)}' is negative", f"a time is zero or more: {USAGE}")
    unit = "s" if match["clock"] else "s" if default_unit == "min" and not match["unit"] and not value else default_unit
    if match["unit"]:
        unit = UNITS.get(match["unit"].lower())
        if unit is None or (match["clock"] and unit != "s"):
            raise source.error(f"'{shorten(source.text)}' has the unknown unit '{shorten(match['unit'])}'", USAGE)
    if unit is None and value:
        seconds = (len(source.text), f"{source.text}s")
        raise source.error(f"'{shorten(source.text)}' has no unit", USAGE, instead=seconds)
    length = Length(value * 60, "s") if unit == "min" else Length(value, unit or "s")
    if length.value > LIMITS[length.unit]:
        limit = Length(Decimal(LIMITS[length.unit]), length.unit)
        raise source.error(f"'{shorten(source.text)}' is beyond the limit of {limit} (24 h)", "make it shorter")
    return length


def _frames(written: str, source: Line) -> Decimal:
    """The last pair of an SMPTE time, in seconds."""
    if int(written) >= SMPTE_RATE:
        message = f"'{shorten(source.text)}' has frame {written}; frames are counted from 0 to {SMPTE_RATE - 1}"
        raise source.error(message, "write seconds, as in 0:04.5")
    return (Decimal(int(written)) / SMPTE_RATE).quantize(Decimal("0.000001"))


def _value(written: str, source: Line) -> Decimal:
    """Parses `12`, `1.5`, or a clock such as `1:02:03.5`, in seconds."""
    total = Decimal(0)
    for part in written.split(":"):
        if len(part) > MAX_DIGITS:
            raise source.error(f"'{shorten(source.text)}' has too many digits", f"the limit is {MAX_DIGITS}")
        total = total * 60 + Decimal(part.replace(",", "."))
    return total


def shorten(text: str) -> str:
    """Shortens `text` to 40 characters for an error message."""
    return text if len(text) <= 40 else text[:39] + "…"
