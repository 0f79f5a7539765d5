"""A script while it is edited: its shots with their lengths in blocks and the comments above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .block_plan import BlockPlan
from .cast import CastEntry
from .duration import shorten
from .header import parse_header
from .reading import ScriptReading
from .shot_text import DIRECTIVE, split_bars
from .shots import Shot, ShotScript, format_head
from .source import Line, ScriptError, split_texts


@dataclass(frozen=True, slots=True)
class DraftShot:
    """A shot, its length in blocks and the comments above it. `typed`: a new text that has not been read yet."""

    shot: Shot
    blocks: int
    comments: tuple[str, ...] = ()
    typed: str | None = None

    def format(self, number: int) -> str:
        """Returns the line of this shot, with its number in the script."""
        if self.typed is None:
            return self.shot.format(number)
        own = {token["name"] for token in DIRECTIVE.finditer(self.typed)}
        text = "\\|".join(self.typed[slice(*part)] for part in split_bars(self.typed))  # a bar would begin a shot
        shot = replace(
            self.shot,
            text=text,
            seed=None if "seed" in own else self.shot.seed,
            keeps=() if "keep" in own else self.shot.keeps,
            recalls=() if "recall" in own else self.shot.recalls,
        )
        return shot.format(number)


@dataclass(frozen=True, slots=True)
class Draft:
    """A script while it is edited. `head` and `tail` are the comments at its ends, `selected` is a shot from 1.

    `cast` is what the text names, `given` what the script has besides.
    """

    style: str
    names: tuple[tuple[str, str], ...]
    shots: tuple[DraftShot, ...]
    auto_recall: bool = False
    cast: tuple[CastEntry, ...] = ()
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    selected: int = 1
    notes: tuple[str, ...] = ()
    given: tuple[CastEntry, ...] = ()

    @property
    def script(self) -> ShotScript:
        """The script as it is meant."""
        shots = tuple(item.shot for item in self.shots)
        return ShotScript(shots, self.style, self.names, self.auto_recall, (*self.given, *self.cast))

    def text(self) -> str:
        """Returns canonical text with the comments."""
        top = [*map(_comment, self.head), *format_head(self.style, self.auto_recall, self.cast, self.names)]
        body = [
            line
            for number, item in enumerate(self.shots, 1)
            for line in (*map(_comment, item.comments), item.format(number))
        ]
        return "\n".join([*top, *([""] if top else []), *body, *map(_comment, self.tail)]) + "\n"

    def without_headers_in_comments(self) -> Draft:
        """Leaves out comments that look like shots, and notes it."""
        lost = [text for text in self._comments() if _looks_like_shot(text)]
        notes = [f"left out the comment '{shorten(text)}', which would be read as a shot" for text in lost]

        def kept(texts: Sequence[str]) -> tuple[str, ...]:
            return tuple(text for text in texts if text not in lost)

        shots = tuple(replace(item, comments=kept(item.comments)) for item in self.shots)
        return replace(
            self, shots=shots, head=kept(self.head), tail=kept(self.tail), notes=(*self.notes, *dict.fromkeys(notes))
        )

    def _comments(self) -> Iterator[str]:
        yield from self.head
        for item in self.shots:
            yield from item.comments
        yield from self.tail


def draft_of(script: ShotScript, text: str, plan: BlockPlan, given: Sequence[CastEntry] = ()) -> Draft:
    """Returns the draft of a script that was read from `text`: what the reader left out becomes comments.

    given: the cast files that it has without naming them, which are its first ones.
    """
    lines = [shot.source.line for shot in script.shots]
    above: list[list[str]] = [[] for _ in (*lines, None)]
    head: list[str] = []
    rows = split_texts(text)
    for line, comment in _left_out(script.reading, rows):
        index = next((index for index, begin in enumerate(lines) if begin > line), len(lines))
        if index == 0 and any(not row.strip() or _is_definition(row) for row in rows[line : lines[0] - 1]):
            head.append(comment)
        else:
            above[index].append(comment)
    shots = tuple(
        DraftShot(shot, len(blocks), tuple(comments))
        for shot, blocks, comments in zip(script.shots, plan.blocks_of_shots, above[:-1], strict=True)
    )
    head_and_tail = tuple(head), tuple(above[-1])
    named = script.cast[len(given) :]
    return Draft(script.style, script.names, shots, script.auto_recall, named, *head_and_tail, given=tuple(given))


def check_read_alike(read: ShotScript, meant: ShotScript) -> None:
    """Raises ScriptError at the first shot that is read otherwise than it is meant."""
    if len(read.shots) != len(meant.shots):
        message = f"this text would make {len(read.shots)} shots of {len(meant.shots)}"
        raise ScriptError(message, remedy="write \\| for a plain bar and \\[ for a plain bracket")
    for number, (shot, wanted) in enumerate(zip(read.shots, meant.shots, strict=True), 1):
        if _fields(shot) != _fields(wanted):
            remedy = "write \\ before a bracket or @ that is a plain character"
            raise ScriptError(f"the text of shot {number} would be read otherwise", remedy=remedy)
    top = (read.style, read.names, read.auto_recall, read.cast)
    if top != (meant.style, meant.names, meant.auto_recall, meant.cast):
        raise ScriptError(
            "the style or a name would be read otherwise", remedy="a name is one word, and its text is not empty"
        )


def _fields(shot: Shot) -> tuple[object, ...]:
    return shot.text, shot.duration, shot.start, shot.seed, shot.continues, shot.keeps, shot.recalls


def _left_out(reading: ScriptReading, rows: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields (line, text) of what the reader left out."""
    for span in reading.spans:
        text = rows[span.line - 1][span.column - 1 : span.end - 1].strip()
        if span.kind == "note" and text.strip("#").strip():
            yield span.line, text


def _is_definition(row: str) -> bool:
    return ":" in row and not row.lstrip().startswith("#")


def _comment(text: str) -> str:
    return text if text.startswith("#") else f"# {text}"


def _looks_like_shot(comment: str) -> bool:
    try:
        return parse_header(Line(comment.lstrip("# "), 1)) is not None
    except ScriptError:
        return True
