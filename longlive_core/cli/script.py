"""`longlive script`: shows how a script is read: notes, warnings, and the canonical text."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..script import Note, ShotScript
from ..script.prompt_folder import read_films, read_script

SCRIPT_HELP = "a ShotScript file, or a folder of prompts: 1.json, 2.json, … and shot_durations.txt"
LINES_HELP = "SCRIPT is a text file with a film of one shot on each line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("script", type=Path, help=SCRIPT_HELP)
    parser.add_argument("--json", action="store_true", help="print the reading as JSON")
    parser.add_argument("--one-film-a-line", action="store_true", help=LINES_HELP)


def run(args: argparse.Namespace) -> int:
    """Prints the reading; returns the exit code."""
    films = read_films(args.script) if args.one_film_a_line else [read_script(args.script)]
    if args.json:
        values = [as_json(film) for film in films]
        print(json.dumps(values if args.one_film_a_line else values[0], ensure_ascii=False, indent=2))
        return 0
    for number, film in enumerate(films, 1):
        if args.one_film_a_line:
            print(f"# film {number}")
        print("\n".join(report_lines(film)))
    return 0


def report_lines(script: ShotScript) -> Iterator[str]:
    """Yields notes and warnings as comments, then the canonical text: the whole is a script again."""
    for line in script.reading.lines():
        yield f"# {line}"
    yield script.format().rstrip("\n")


def as_json(script: ShotScript) -> dict[str, Any]:
    """Returns the reading as JSON values: shots with line and column, notes, warnings, the canonical text."""
    shots = [
        {
            "line": shot.source.line,
            "column": shot.source.column,
            "text": shot.text,
            "prompt": shot.prompt,
            "start": None if shot.start is None else str(shot.start),
            "duration": None if shot.duration is None else str(shot.duration),
            "seed": shot.seed,
            "continues": shot.continues,
        }
        for shot in script.shots
    ]
    return {
        "shots": shots,
        "style": script.style,
        "names": dict(script.names),
        "notes": [_note(note) for note in script.reading.notes],
        "warnings": [_note(note) for note in script.reading.warnings],
        "canonical": script.format(),
    }


def _note(note: Note) -> dict[str, Any]:
    return {"line": note.line, "column": note.column, "end_line": note.end_line, "message": note.message}
