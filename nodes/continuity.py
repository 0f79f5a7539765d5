"""The continuity report of a take's film, for the cards of its shots; it is in the take once it was asked for.

With it are the facts of the film's blocks, so that after a retake only the blocks that changed are measured. Nothing is
measured while a prompt is executed, which needs the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..longlive_core.evaluation.continuity import LIMIT, MEASURES, ShotScore, either_of_recalled, score_film
from ..longlive_core.evaluation.continuity_report import FORMAT, compared_with
from ..longlive_core.evaluation.film_facts import has_detector
from ..longlive_core.evaluation.kept_facts import KeptFacts, joined, measure_blocks
from ..longlive_core.render.rank_versions import FilmScores
from ..longlive_core.take import Take
from ..longlive_core.take.block_file import write_text
from ..longlive_core.take.take import CONTINUITY, FILE

if TYPE_CHECKING:
    from .take_json import TakeView

Report = dict[str, Any]
NOTHING: Report = {"limit": LIMIT, "shots": []}
WAITING: Report = {**NOTHING, "waiting": True}


class BusyError(Exception):
    """A prompt is executed."""


def continuity(view: TakeView, is_busy: Callable[[], bool] = lambda: False) -> Report:
    """Scores the shots of a take's film, which takes about a second for ten of video at 128x128; needs no model.

    Nothing while the film is made, and for a file that may have other versions of shots than the take has now. WAITING
    if the film has to be measured and `is_busy`, also from then on: ask again later.
    """
    film, take = view.film, view.take
    if film is None or view.making or not take.complete:
        return NOTHING
    stat = film.stat()
    of = {"film": film.name, "time": stat.st_mtime_ns, "bytes": stat.st_size}
    of |= {"versions": [shot.chosen for shot in take.shots], "measured": [FORMAT, has_detector()]}
    known = _known(take.folder / CONTINUITY)
    if known.get("of") == of:
        return known["report"]
    if stat.st_mtime_ns < (take.folder / FILE).stat().st_mtime_ns:
        return NOTHING  # another version was chosen since, or a shot was locked

    def check() -> None:
        if is_busy():
            raise BusyError

    try:
        check()
        blocks = measure_blocks(film, take.plan, _kept(known), check)
        scores = FilmScores.of(take, facts=joined(blocks, take.plan))
        report = {"limit": LIMIT, "shots": list(_shots(take, scores))}
        kept = {"of": of, "report": report, "blocks": [block.as_json() for block in blocks]}
        write_text(take.folder / CONTINUITY, json.dumps(kept) + "\n")
    except BusyError:
        return WAITING
    except (OSError, ValueError):
        return NOTHING  # a file that was cut short or cannot be read, or a disk that cannot be written
    return report


def _shots(take: Take, film: FilmScores) -> Iterator[Report]:
    for scored in score_film(film.facts, take.plan, film.references):
        score = either_of_recalled(scored, take.plan)
        faults = list(_faults(take, film, score))
        yield {"shot": score.shot + 1, "score": round(score.score, 4), "faults": faults}


def _faults(take: Take, film: FilmScores, score: ShotScore) -> Iterator[Report]:
    """What is below the limit, and with which shots and cast files it was compared; both count from 1."""
    for measure in MEASURES:
        value = score.scores[measure]
        if value is not None and value < LIMIT:
            shots, files = compared_with(measure, take.plan, film.references[score.shot])
            cut = take.plan.blocks_of_shots[score.shot][0].cut
            yield {"measure": measure, "score": round(value, 4), "shots": shots, "files": files, "cut": cut}


def _kept(known: Mapping[str, Any]) -> dict[str, KeptFacts]:
    """The facts of blocks of an earlier film, by their keys."""
    try:
        return {block.key: block for block in map(KeptFacts.from_json, known.get("blocks", ()))}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _known(path: Path) -> Report:
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
