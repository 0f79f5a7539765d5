"""The settings of several films of one script whose seeds follow one another."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..sampling import MAX_SEED
from ..take.settings import Settings
from ..take.take import SUFFIX
from ..vram.films_at_once import check_films
from .settings import RenderSettings


def variants_of(settings: RenderSettings, count: int) -> list[RenderSettings]:
    """The settings of so many new films: FILM-1.mp4 with the seed, FILM-2.mp4 with the next one, and so on.

    Raises ValueError for a number of films outside 1 … MAX_FILMS, and for seeds above MAX_SEED.
    """
    check_films(count)
    if settings.seed + count - 1 > MAX_SEED:
        raise ValueError(f"seed {settings.seed} leaves no seeds for {count} films: they end at {MAX_SEED}")
    outputs = numbered_films(settings.output, count)
    return [replace(settings, output=output, seed=settings.seed + i) for i, output in enumerate(outputs)]


def resumed_variants(
    take: Path,
    count: int,
    given: Settings | None = None,
    **more: Any,  # noqa: ANN401
) -> list[RenderSettings]:
    """The settings of films that were begun together. take: of the first of them, FILM-1.take.

    Raises ValueError for a take without a number, and as `RenderSettings.resumed` for each take.
    """
    check_films(count)
    match = re.fullmatch(r"(.*)-(0*1)", take.stem)
    if match is None or take.suffix != SUFFIX:
        raise ValueError(f"{take} is not the first take of several films, whose name ends in -1{SUFFIX}")
    films = numbered_films(take.with_name(match[1] + SUFFIX), count)
    if films[0] != take:
        raise ValueError(f"{count} films begin with {films[0]}, not with {take}; name as many films as were begun")
    return [RenderSettings.resumed(film, None, given, **more) for film in films]


def numbered_films(output: Path, count: int) -> list[Path]:
    """The files of several films: FILM-1.mp4, FILM-2.mp4, …, with as many digits as the last one."""
    digits = len(str(count))
    return [output.with_name(f"{output.stem}-{number:0{digits}}{output.suffix}") for number in range(1, count + 1)]
