"""ShotScript: a film as text, parsed into shots and written back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .block_plan import DEFAULT_SECONDS, BlockPlan, make_plan
from .duration import Length, shorten
from .reader import STYLE, Entry, Reader
from .shot_text import MAX_CHARACTERS, REFERENCE, check_size, expand, parse_text
from .source import Line, ScriptError, SourceText, read_text

SENTENCE_ENDS = (".", "!", "?", "…", ",", ";", ":")


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot as written. Its line and column in the script take no part in comparisons.

    `text` keeps {names} and escapes; `prompt` has them replaced, and the style added, but no scene transition.
    `duration` and `start` are as written, in s, f or blocks; None where the script says nothing.
    `continues` asks for a new prompt without a cut.
    """

    text: str
    prompt: str
    duration: Length | None = None
    start: Length | None = None
    seed: int | None = None
    continues: bool = False
    source: Line = field(default=Line("", 1), compare=False, repr=False)

    def format(self, number: int) -> str:
        """The canonical line of this shot, the `number`-th of its script."""
        time = f" ({self.duration})" if self.duration else ""
        if self.start and self.duration:
            time = f" [{self.start}-{self.start + self.duration}]"
        elif self.start:
            time = f" [{self.start}]"
        flag = " continue" if self.continues else ""
        seed = "" if self.seed is None else f" @seed={self.seed}"
        return f"Shot {number}{time}{flag}: {self.text}{seed}"


@dataclass(frozen=True, slots=True)
class ShotScript:
    """A whole script: `names` are (name, text) pairs as defined, `style` is added to every shot.

    Limits: 1,000 shots, 10,000 characters in a shot's prompt, 24 hours, files of 16 MiB.
    """

    shots: tuple[Shot, ...]
    style: str = ""
    names: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> ShotScript:
        """Read a script. Raises ScriptError, with line, column and remedy, at the first thing that is wrong."""
        reader = Reader()
        reader.read(text)
        if not reader.shots:
            raise _no_shots(reader.definitions)
        definitions = read_definitions(reader.definitions)
        shots = tuple(read_shot(entry, definitions) for entry in reader.shots)
        return cls(shots, definitions.style, definitions.names)

    @classmethod
    def read(cls, path: str | Path) -> ShotScript:
        """Read a UTF-8 text file. Raises ScriptError where it cannot be read, is too large or is no text."""
        return cls.parse(read_text(path))

    def format(self) -> str:
        """The script in canonical text: parsing it gives this script again."""
        head = [f"{STYLE}: {self.style}"] if self.style else []
        head += [f"{name}: {text}" for name, text in self.names]
        body = [shot.format(number) for number, shot in enumerate(self.shots, 1)]
        return "\n".join([*head, "", *body] if head else body) + "\n"

    def plan(self, fps: float = 24, block_frames: int = 8, default_seconds: float = DEFAULT_SECONDS) -> BlockPlan:
        """The film in whole blocks of `block_frames` latent frames, at `fps` video frames per second.

        `default_seconds` is the length of a shot that names none. A length is rounded to the nearest block and the
        plan's notes say so. Raises ScriptError where a shot is shorter than half a block, where times contradict each
        other, and beyond 24 hours; ValueError for an impossible rate or default.
        """
        return make_plan(self.shots, fps, block_frames, self._notes(), default_seconds)

    def _notes(self) -> list[str]:
        """What the script says to no effect."""
        texts = [self.style, *(text for _, text in self.names), *(shot.text for shot in self.shots)]
        used = {found[1].strip().casefold() for text in texts for found in REFERENCE.finditer(text) if found[1]}
        unused = [name for name, _ in self.names if name.casefold() not in used]
        notes = [f"'{shorten(name)}: …' is a named thing, but no shot uses {{{shorten(name)}}}" for name in unused]
        if self.shots[0].continues:
            notes.append("shot 1 has nothing to continue from: it starts the film")
        return notes


@dataclass(frozen=True, slots=True)
class Definitions:
    """Style and named things as written, and in full with names replaced, the names case-folded."""

    style: str
    names: tuple[tuple[str, str], ...]
    full_style: str
    full_names: dict[str, str]


def read_definitions(entries: list[Entry]) -> Definitions:
    """Raises ScriptError at a second definition of one name, and at one without text. A name may use those above it."""
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
    written = texts.pop(STYLE)[1] if style is not None else ""
    full_style = expand(written, full, style) if style is not None else ""
    return Definitions(written, tuple(texts.values()), full_style, full)


def read_shot(entry: Entry, definitions: Definitions) -> Shot:
    """Raises ScriptError, for an unknown name and a shot without text among others."""
    source_text = entry.source_text
    parsed = parse_text(source_text)
    if not parsed.text:
        raise entry.source.error("a shot without text", "write what it shows")
    prompt = expand(parsed.text, definitions.full_names, source_text)
    if definitions.full_style:
        prompt = _styled(prompt, definitions.full_style)
        check_size(len(prompt), source_text)
    timing = entry.timing
    return Shot(parsed.text, prompt, timing.duration, timing.start, parsed.seed, entry.continues, entry.source)


def _styled(prompt: str, style: str) -> str:
    return prompt + (" " if prompt.endswith(SENTENCE_ENDS) else ", ") + style


def plan_shot(
    prompt: str,
    length: Length,
    seed: int | None = None,
    style: str = "",
    fps: float = 24,
    block_frames: int = 8,
) -> BlockPlan:
    """The plan of a film of one shot. Its texts are taken as they are: no sign in them has a meaning.

    Raises ValueError without a prompt and beyond 10,000 characters, and as `ShotScript.plan` does.
    """
    text, added = (" ".join(part.split()) for part in (prompt, style))
    if not text:
        raise ValueError("the prompt is empty: write what the shot shows")
    if added:
        text = _styled(text, added)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"the prompt has {len(text)} characters, the limit is {MAX_CHARACTERS}; shorten it")
    return make_plan([Shot(text, text, length, seed=seed)], fps, block_frames, [], DEFAULT_SECONDS)


def _no_shots(definitions: list[Entry]) -> ScriptError:
    example = "write one shot per line, as in 'Shot 1 (4s): a red fox in the snow'"
    last = definitions[-1].source if definitions else Line("", 1)
    if definitions:
        example += f"; '{shorten(last.text)}' is read as a definition, put 'Shot 1:' before it to make it a shot"
    return last.error("the script has no shots", example)
