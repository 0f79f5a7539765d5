"""Reads label lines, as in `Duration: 4s`, and what is no part of a shot: transitions, negative prompts."""

from __future__ import annotations

import re

from .duration import Timing, unit_of
from .entry import STYLE, Entry, ScriptState
from .header import Header
from .markup import Row
from .reading import NO_SHOT
from .source import Line, ScriptError
from .tables import time_of
from .times import parse_group
from .words import LABELS, PARAMETERS, SIGNS, TRANSITION, fold

LABEL = re.compile(
    SIGNS.pattern + r"(?P<label>[^\W\d][^:|{}\[\]()]{0,40}?)\s*(?:\((?P<about>[^()]{1,40})\)\s*)?:\s*(?P<value>.*)"
)
LABEL_IN_BRACKETS = re.compile(r"\[(?P<label>[^\[\]:]{1,20})\]\s*:?\s*(?P<value>.*)")

DASHED = re.compile(r"(?P<label>[^\W\d][^\W\d]{0,20}(?:\s[^\W\d]{1,20})?)\s+[-–—=]\s+(?P<value>[0-9].*)")


class LabelReader(ScriptState):
    """Reads lines with labels. `skipping`: the lines that belong to a negative prompt, "below" or "indented"."""

    def __init__(self) -> None:
        super().__init__()
        self.skipping = ""

    def read_aside(self, line: Line, header: Header | None, indented: bool) -> bool:
        """Reads what is no part of a shot: transitions, negative prompts, parameters of other programs."""
        if self.skipping and header is None and (indented or self.skipping == "below"):
            self.note(line, "left out: it is a negative prompt; the script has none", left_out=True)
            return True
        self.skipping = ""
        if header is None and (transition := TRANSITION.match(fold(line.text))):
            what = "left out: it is a transition, and every shot begins with a cut"
            if transition.end() == len(line.text):
                self.note(line, what, left_out=True)
                self.open = None
                return True
            if self.open is None or not self.open.text_below or self.open.name:
                self.note(line.slice(0, transition.end()), what)
                text = line.slice(transition.end())
                self.start(Entry(line, [text], header=Header(line, texts=(text,))))
                return True
        if header is None and PARAMETERS.match(line.text):
            self.note(line, "left out: it holds parameters of another program", left_out=True)
            return True
        return False

    def read_label(self, row: Row) -> bool:
        """Reads `Duration: 4s`, `Prompt: …`, `Camera: …`, `Negative prompt: …`. Returns False if the line is none."""
        line = row.line
        label = LABEL.fullmatch(fold(line.text)) or LABEL_IN_BRACKETS.fullmatch(fold(line.text))
        if label is None and (dashed := DASHED.fullmatch(fold(line.text))) and _role(dashed) == "time":
            label = dashed
        role = _role(label) if label else None
        if label is None or role is None or label["label"].casefold() in self.structure.referenced:
            return self._read_list_item(row)
        value, shot, about = line.slice(label.start("value")), self.shot_above(), _about(line, label)
        if role == "negative":
            message = "left out: it is a negative prompt; the script has none: use --negative or the node's input"
            self.note(line, message, left_out=True)
            self.skipping = "indented" if value.text else "below"
            return True
        if role == "text":
            self._read_prompt(line, value, shot, about)
            return True
        unit = unit_of(about.text) if about else None
        if role == "time" and (timing := _timing_of(value, unit)) is not None:
            self._read_time(line, timing, shot)
            if about and unit is None:
                self._leave_out(about)
            return True
        if role == "seed" and shot is not None and value.text.isdecimal():
            shot.lines.append(Line(f"@seed={value.text}", line.line, line.column))
            return True
        if role == "style" and label["label"].lower() != STYLE and not self.shots and value.text:
            self.open = Entry(line, [value], STYLE)
            self.definitions.append(self.open)
            return True
        if role == "film" or (role == "aside" and shot is None):
            self.note(line, NO_SHOT, left_out=True)
            return True
        return self._read_list_item(row, is_label=role != STYLE or (shot is not None and shot.text_below))

    def _read_list_item(self, row: Row, is_label: bool = False) -> bool:
        """Adds a list item or a label line to the shot above it, if that has a header or labels."""
        shot = self.shot_above()
        if shot is None or not (row.bullet or is_label) or (shot.header is None and row.bullet and not is_label):
            return False
        if shot.header is not None and not shot.header.word and not is_label:
            return False
        shot.lines.append(row.line)
        shot.text_below |= shot.header is not None
        return True

    def _read_prompt(self, line: Line, value: Line, shot: Entry | None, about: Line | None) -> None:
        if shot is None or (shot.labelled and shot.lines):
            shot = self.start(Entry(line, labelled=True))
        if about:
            self._read_about(about, shot)
        if value.text:
            shot.lines.append(value)
        shot.text_below = shot.header is not None or not value.text

    def _read_about(self, about: Line, shot: Entry) -> None:
        """Reads what a label of a prompt has in round brackets: a time and other words, as a header has them."""
        try:
            timing, continues, titles = parse_group(about, False)
        except ScriptError:
            self._leave_out(about)
            return
        shot.continues |= continues
        shot.lines += titles
        if shot.timing == Timing():
            shot.timing = timing
        elif timing not in (Timing(), shot.timing):
            self.note(about, f"left out '{about.text}': the shot has a time already")

    def _leave_out(self, about: Line) -> None:
        self.note(about, f"left out '{about.text}': it is part of a label")

    def _read_time(self, line: Line, timing: Timing, shot: Entry | None) -> None:
        if shot is None or (shot.labelled and shot.timing != Timing()):
            shot = self.start(Entry(line, labelled=True, text_below=True))
        if shot.timing == Timing():
            shot.timing, shot.text_below = timing, True
        elif shot.timing != timing:
            self.note(line, "left out: the header of the shot has a time already", left_out=True)


def _role(label: re.Match[str]) -> str | None:
    return LABELS.get(" ".join(label["label"].lower().split()))


def _about(line: Line, label: re.Match[str]) -> Line | None:
    """What a label has in round brackets, as in "Length (frames): 96"."""
    inside = label.groupdict().get("about")
    return line.slice(*label.span("about")) if inside and inside.strip() else None


def _timing_of(value: Line, unit: str | None) -> Timing | None:
    """The time of a label that may name its unit, or None if it is words."""
    try:
        return time_of(value, unit) if value.text else None
    except ScriptError:
        return None
