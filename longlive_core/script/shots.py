"""ShotScript: parse a film written as text into shots, and format it as text again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..types import BLOCK_FRAMES, FPS
from .block_plan import DEFAULT_SECONDS, BlockPlan, make_plan
from .cast import CAST, CastEntry, cast_facts, find_cast, name_of_path, take_cast
from .duration import Length, Timing, shorten
from .entry import STYLE, Entry, referenced_names
from .hints import hints
from .reader import Reader
from .reading import ScriptReading, spans_of
from .recall import AUTO, SETTING, Kept, format_words, resolve
from .settle import settle_unused_names
from .shot_text import MAX_CHARACTERS, check_size, expand, parse_text
from .source import Line, ScriptError, SourceText, read_text
from .times import CLOSER, find_time

SENTENCE_ENDS = (".", "!", "?", "…", ",", ";", ":")


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot of a script. Comparisons ignore its line and column.

    `text` is as written, with {names} and escapes; `prompt` has them replaced and the style added, but no cut prefix.
    `duration` and `start` are as written, in s, f or blocks, or None. `continues`: a new prompt without a cut.
    `keeps`: its kept blocks. `recalls`: the names behind @recall.
    """

    text: str
    prompt: str
    duration: Length | None = None
    start: Length | None = None
    seed: int | None = None
    continues: bool = False
    keeps: tuple[Kept, ...] = ()
    recalls: tuple[str, ...] = ()
    source: Line = field(default=Line("", 1), compare=False, repr=False)

    def format(self, number: int) -> str:
        """Returns the canonical line of this shot, with its number in the script."""
        time = f" ({self.duration})" if self.duration else ""
        if self.start:
            time = f" [{self.start}-{self.start + self.duration}]" if self.duration else f" [{self.start}]"
        flag = " continue" if self.continues else ""
        seed = "" if self.seed is None else f" @seed={self.seed}"
        return f"Shot {number}{time}{flag}: {self.text}{seed}{format_words(self.keeps, self.recalls)}"


@dataclass(frozen=True, slots=True)
class ShotScript:
    """A whole script. `names` are (name, text) pairs as defined; `style` is added to every shot.

    `reading` says how the text was read; it is empty for a script that was not read from a text. `auto_recall`: names
    in curly brackets recall what an earlier shot keeps under them. `cast`: files with blocks that shots recall.

    Limits: 1,000 shots, 10,000 characters in a shot's prompt, 24 hours, files of 16 MiB.
    """

    shots: tuple[Shot, ...]
    style: str = ""
    names: tuple[tuple[str, str], ...] = ()
    auto_recall: bool = False
    cast: tuple[CastEntry, ...] = ()
    reading: ScriptReading = field(default=ScriptReading(), compare=False, repr=False)

    @classmethod
    def parse(
        cls, text: str, cast_name: Callable[[str], str] = name_of_path, given: Sequence[CastEntry] = ()
    ) -> ShotScript:
        """Parses a script. Raises ScriptError, with line, column and remedy, at the first error.

        cast_name: the name in the cast file with a path. given: cast files that it has without naming them. See
        `take_cast`.
        """
        reader = Reader()
        reader.read(text)
        if not reader.shots:
            raise _no_shots(reader.definitions)
        auto, cast = take_auto_recall(reader), take_cast(reader, cast_name, given)
        definitions = read_names(reader)
        shots = tuple(read_shot(entry, definitions) for entry in reader.shots)
        resolve(shots, auto=auto, cast=cast)
        return cls(shots, definitions.style, definitions.names, auto, cast, reading_of(reader, shots))

    @classmethod
    def read(cls, path: str | Path) -> ShotScript:
        """Parses a UTF-8 text file. Raises ScriptError as `parse` does, and if it or a cast file cannot be read."""
        return cls.parse(read_text(path), lambda file: cast_facts(find_cast(file, Path(path).parent)).get("name", ""))

    def format(self) -> str:
        """Returns the script as canonical text; parsing it gives an equal script."""
        head = format_head(self.style, self.auto_recall, self.cast, self.names)
        body = [shot.format(number) for number, shot in enumerate(self.shots, 1)]
        return "\n".join([*head, "", *body] if head else body) + "\n"

    def plan(
        self, fps: float = FPS, block_frames: int = BLOCK_FRAMES, default_seconds: float = DEFAULT_SECONDS
    ) -> BlockPlan:
        """Plans the film in whole blocks of `block_frames` latent frames, at `fps` video frames per second.

        `default_seconds` is the length of a shot without a length. Lengths are rounded to the nearest block, and the
        notes of the plan say so. Raises ScriptError for a shot shorter than half a block, for contradictory times and
        beyond 24 hours, for a kept block that its shot does not have, and as `resolve`, and ValueError for an invalid
        rate, block length or default.
        """
        return make_plan(self.shots, fps, block_frames, self._notes(), default_seconds, self.auto_recall, self.cast)

    def _notes(self) -> list[str]:
        """Returns notes on parts of the script that have no effect."""
        texts = [self.style, *(text for _, text in self.names), *(shot.text for shot in self.shots)]
        used = referenced_names(texts)
        unused = [name for name, _ in self.names if name.casefold() not in used]
        notes = [f"'{shorten(name)}: …' is a named thing, but no shot uses {{{shorten(name)}}}" for name in unused]
        if self.shots[0].continues:
            notes.append("shot 1 has nothing to continue from: it starts the film")
        return notes


@dataclass(frozen=True, slots=True)
class Definitions:
    """The style and the names as written, and in full: with names replaced. Keys of `full_names` are case-folded."""

    style: str
    names: tuple[tuple[str, str], ...]
    full_style: str
    full_names: dict[str, str]


def format_head(
    style: str, auto_recall: bool, cast: tuple[CastEntry, ...], names: tuple[tuple[str, str], ...]
) -> list[str]:
    """Returns the canonical lines above the first shot."""
    lines = [(STYLE, style), (SETTING, AUTO if auto_recall else ""), (CAST, ", ".join(map(str, cast))), *names]
    return [f"{name}: {text}" for name, text in lines if text]


def take_auto_recall(reader: Reader) -> bool:
    """Takes the line `recall: auto` out of the definitions; returns whether it is there.

    A script may have a name {recall}. Raises ScriptError for another word behind the colon.
    """
    texts = [entry.source_text.text for entry in (*reader.definitions, *reader.shots)]
    found = [entry for entry in reader.definitions if entry.name.casefold() == SETTING]
    if not found or SETTING in referenced_names(texts):
        return False
    words = found[0].source_text.text.split()
    if [word.casefold() for word in words] != [AUTO]:
        if len(words) > 1:
            return False  # a name that nothing uses, or a shot
        remedy = "write recall: auto, so that {names} recall what is kept under them, or leave the line out"
        raise found[0].source.error(f"'{shorten(found[0].source.text)}' is no setting", remedy)
    reader.definitions.remove(found[0])
    return True


def read_definitions(entries: list[Entry]) -> Definitions:
    """Reads the style and the names. A name may use the names defined above it.

    Raises ScriptError for a second definition of a name, and for a definition without text.
    """
    lines: dict[str, int] = {}
    texts: dict[str, tuple[str, str]] = {}
    full: dict[str, str] = {}
    style: SourceText | None = None
    for entry in entries:
        key = entry.name.casefold()
        if key in lines:
            raise entry.source.error(
                f"'{shorten(entry.name)}' is defined on line {lines[key]} already", "keep one of them"
            )
        lines[key] = entry.source.line
        text = parse_text(entry.source_text, in_shot=False).text
        if not text:
            raise entry.source.error(f"'{shorten(entry.name)}:' without a text", "write it after the colon")
        texts[key] = entry.name, text
        if key == STYLE:
            style = entry.source_text
        else:
            full[key] = expand(text, full, entry.source_text)
    _, written = texts.pop(STYLE, ("", ""))
    full_style = expand(written, full, style) if style is not None else ""
    return Definitions(written, tuple(texts.values()), full_style, full)


def read_names(reader: Reader) -> Definitions:
    """Reads the definitions of a script; those that nothing uses may become shots. Raises as `read_definitions`."""
    definitions = read_definitions(reader.definitions)
    texts = [entry.source_text.text for entry in (*reader.definitions, *reader.shots)]
    settle_unused_names(reader, referenced_names(texts))
    return (
        definitions
        if len(reader.definitions) == len(definitions.full_names) + bool(definitions.style)
        else (read_definitions(reader.definitions))
    )


def read_shot(entry: Entry, definitions: Definitions) -> Shot:
    """Reads one shot. Raises ScriptError, for example for an unknown name or a shot without text."""
    source_text = entry.source_text
    parsed = parse_text(source_text)
    if not parsed.text:
        raise entry.source.error("a shot without text", "write what it shows")
    timing, continues = entry.timing, entry.continues
    if timing == Timing() and (found := find_time(Line(parsed.text, entry.source.line, entry.source.column))):
        after = found.after.slice(closer.end()) if (closer := CLOSER.match(found.after.text)) else found.after
        kept = [piece for piece in (found.before, after) if piece.text]
        if not kept:
            raise entry.source.error("a shot without text", "write what it shows after its time")
        else:
            timing, continues = found.timing, continues or found.continues
            parsed = replace(parsed, text=parse_text(SourceText(tuple(kept))).text)
    text = parsed.text
    prompt = expand(text, definitions.full_names, source_text)
    if definitions.full_style:
        prompt = _styled(prompt, definitions.full_style)
        check_size(len(prompt), source_text)
    words = parsed.keeps, parsed.recalls
    return Shot(text, prompt, timing.duration, timing.start, parsed.seed, continues, *words, source=entry.source)


def _styled(prompt: str, style: str) -> str:
    """Appends the style, after a comma if the prompt does not end with punctuation."""
    return prompt + (" " if prompt.endswith(SENTENCE_ENDS) else ", ") + style


def plan_shot(
    prompt: str,
    length: Length,
    seed: int | None = None,
    style: str = "",
    fps: float = FPS,
    block_frames: int = BLOCK_FRAMES,
) -> BlockPlan:
    """Plans a film of one shot. Prompt and style are plain text: no character has a special meaning.

    Raises ValueError for an empty prompt, for more than 10,000 characters, and as `ShotScript.plan` does.
    """
    text, added = (" ".join(part.split()) for part in (prompt, style))
    if not text:
        raise ValueError("the prompt is empty: write what the shot shows")
    if added:
        text = _styled(text, added)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"the prompt has {len(text)} characters, the limit is {MAX_CHARACTERS}; shorten it")
    return make_plan([Shot(text, text, length, seed=seed)], fps, block_frames, [], DEFAULT_SECONDS)


def reading_of(reader: Reader, shots: tuple[Shot, ...]) -> ScriptReading:
    """Returns how the text was read, with warnings about what still looks like structure."""
    for entry, shot in zip(reader.shots, shots, strict=True):
        found_in_text = Timing(shot.start, shot.duration) != entry.timing
        for piece in entry.lines:
            for hint in hints(piece, times=not found_in_text):
                reader.warn(hint.place, hint.message, hint.fix)
    texts = [piece for entry in (*reader.definitions, *reader.shots) for piece in entry.lines]
    spans = spans_of(reader.lines, texts, reader.pieces_left_out, reader.lines_read, reader.left_out)
    return ScriptReading(shots, tuple(sorted((*reader.notes, *reader.left_out))), tuple(sorted(reader.warnings)), spans)


def _no_shots(definitions: list[Entry]) -> ScriptError:
    example = "write one shot per line, as in 'Shot 1 (4s): a red fox in the snow'"
    last = definitions[-1].source if definitions else Line("", 1)
    if definitions:
        example += f"; '{shorten(last.text)}' is read as a definition, put 'Shot 1:' before it to make it a shot"
    return last.error("the script has no shots", example)
