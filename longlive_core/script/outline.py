"""The outline of a script: what a view of it shows, with the place of each shot in the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..types import BLOCK_FRAMES, FPS, TIME_FACTOR, BlockSpec
from .block_plan import DEFAULT_SECONDS, BlockPlan
from .reading import Note, Span
from .shots import Shot, ShotScript


@dataclass(frozen=True, slots=True)
class Place:
    """Characters from `column` up to `end` (not included) of `line`, counted from 1."""

    line: int
    column: int
    end: int


@dataclass(frozen=True, slots=True)
class ShotOutline:
    """One shot of a film. `start` and `seconds` are in seconds, `frames` video frames.

    `text` is as written, `prompt` as the model gets it, without the phrase for a cut. `asked`: the length as written,
    or "". `header` is where the shot begins in the text, `texts` where its words are.
    """

    number: int
    text: str
    prompt: str
    asked: str
    start: float
    seconds: float
    blocks: int
    frames: int
    continues: bool
    seed: int | None
    header: Place
    texts: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """A whole film. `block_seconds` is the length of a block behind the first; `plan_notes` say what was rounded."""

    seconds: float
    frames: int
    blocks: int
    block_seconds: float
    style: str
    names: tuple[tuple[str, str], ...]
    shots: tuple[ShotOutline, ...]
    notes: tuple[Note, ...]
    warnings: tuple[Note, ...]
    plan_notes: tuple[str, ...]


def outline(script: ShotScript, fps: float = FPS, default_seconds: float = DEFAULT_SECONDS) -> Outline:
    """Plans a script that was read from a text and returns its outline. Raises as `ShotScript.plan` does."""
    plan = script.plan(fps, default_seconds=default_seconds)
    parts = zip(script.shots, plan.blocks_of_shots, _places(script), strict=True)
    shots = tuple(_shot_outline(shot, blocks, plan, *place) for shot, blocks, place in parts)
    return Outline(
        seconds=plan.seconds,
        frames=plan.video_frames,
        blocks=len(plan.blocks),
        block_seconds=BLOCK_FRAMES * TIME_FACTOR / fps,
        style=script.style,
        names=script.names,
        shots=shots,
        notes=script.reading.notes,
        warnings=script.reading.warnings,
        plan_notes=plan.notes,
    )


def _shot_outline(
    shot: Shot, run: tuple[BlockSpec, ...], plan: BlockPlan, header: Place, texts: tuple[Place, ...]
) -> ShotOutline:
    frames = sum(block.video_frames for block in run)
    return ShotOutline(
        number=run[0].shot + 1,
        text=shot.text,
        prompt=shot.prompt,
        asked=str(shot.duration or ""),
        start=run[0].video_start / plan.fps,
        seconds=frames / plan.fps,
        blocks=len(run),
        frames=frames,
        continues=shot.continues and run[0].shot > 0,
        seed=shot.seed,
        header=header,
        texts=texts,
    )


def _places(script: ShotScript) -> Iterator[tuple[Place, tuple[Place, ...]]]:
    """Yields where each shot begins, and where its words are: the texts up to the beginning of the next shot."""
    texts = [span for span in script.reading.spans if span.kind == "text"]
    begins = [(shot.source.line, shot.source.column) for shot in script.shots]
    lengths = [len(shot.source.text) for shot in script.shots]
    at = 0
    for begin, length, following in zip(begins, lengths, [*begins[1:], None], strict=True):
        while at < len(texts) and _begin(texts[at]) < begin:
            at += 1
        first = at
        while at < len(texts) and (following is None or _begin(texts[at]) < following):
            at += 1
        words = tuple(Place(span.line, span.column, span.end) for span in texts[first:at])
        end = words[0].column if words and words[0].line == begin[0] else begin[1] + length
        yield Place(*begin, end), words


def _begin(span: Span) -> tuple[int, int]:
    return span.line, span.column
