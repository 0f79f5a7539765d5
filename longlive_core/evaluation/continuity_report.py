"""A continuity report as lines, the worst shot first, and as data for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..script import BlockPlan
from ..units import numbered, plural
from .continuity import MEASURES, Measure, ShotScore, Similarity
from .references import References

FORMAT: Final = "longlive-continuity-1"
DETECTORS: Final = ("steps between frames", "PySceneDetect and steps between frames")


def worst_first(scores: Sequence[ShotScore]) -> list[ShotScore]:
    """The shots by score, equal ones in the order of the film."""
    return sorted(scores, key=lambda score: (score.score, score.shot))


def report_lines(
    scores: Sequence[ShotScore], plan: BlockPlan, references: Sequence[References], limit: float
) -> Iterator[str]:
    """Yields a table of all shots, and what is wrong with those below the limit.

    The table has a column for the similarity if there is one, which an asterisk marks where it counts.
    """
    has_features = any(score.similarity is not None for score in scores)
    yield "shot  score  " + "".join(f"{name:>10}" for name in MEASURES) + "  similarity" * has_features
    for score in worst_first(scores):
        row = "".join(f"{_figure(score.scores[name]):>10}" for name in MEASURES)
        if has_features:
            row += f"{_figure(score.similarity) + '*' * score.stands_in:>12}"
        yield f"{score.shot + 1:4}  {score.score:5.2f}  {row}"
    below = [score for score in worst_first(scores) if score.score < limit]
    for score in below:
        for name, value in score.counted.items():
            if value < limit:
                yield f"shot {score.shot + 1}: {_fault(name, plan, references[score.shot], score.shot)}"
    good = len(scores) - len(below)
    yield f"{good} of {plural(len(scores), 'shot')} at {limit:g} or above"


def report_data(
    film: str,
    scores: Sequence[ShotScore],
    references: Sequence[References],
    limit: float,
    detector: bool,
    features: str | None = None,
) -> dict[str, Any]:
    """The report as data: shots count from 1 as in the script, blocks from 0 as in a take.

    features: name of the vision model, if one was used; the keys of its figures are missing without it.
    """
    return {
        "format": FORMAT,
        "film": film,
        "limit": limit,
        "cuts": DETECTORS[detector],
        **({} if features is None else {"features": features}),
        "score": _rounded(min(score.score for score in scores)),
        "worst_first": [score.shot + 1 for score in worst_first(scores)],
        "shots": [
            {
                "shot": score.shot + 1,
                "score": _rounded(score.score),
                "worst": score.worst,
                "scores": {name: _rounded(score.scores[name]) for name in MEASURES},
                "compared": {
                    "identity": list(references[score.shot].identity),
                    "place": list(references[score.shot].place),
                },
                **({} if features is None else _similarity(score)),
            }
            for score in scores
        ],
    }


def _similarity(score: ShotScore) -> dict[str, Any]:
    return {"similarity": _rounded(score.similarity), "similarity_counts": score.stands_in}


def _fault(measure: Measure | Similarity, plan: BlockPlan, references: References, shot: int) -> str:
    """What a low score says, in a few words."""
    shots, files = compared_with(measure, plan, references)
    others = " and ".join(numbered(noun, found) for noun, found in (("shot", shots), ("cast file", files)) if found)
    if measure in ("identity", "place"):
        thing = "subject" if measure == "identity" else "place"
        return f"{measure}: its {thing} has other colours than that of {others}"
    if measure == "similarity":
        return f"similarity: its frames look unlike those of {others}, and no subject stands out by colour"
    if measure == "colour":
        return "colour: its colours change from its first block on"
    if measure == "seam":
        return "seam: its picture jumps where two blocks meet"
    if plan.blocks_of_shots[shot][0].cut:
        return "cut: none is found at its start, or another one within it"
    return "cut: one is found that the script does not have"


def compared_with(
    measure: Measure | Similarity, plan: BlockPlan, references: References
) -> tuple[list[int], list[int]]:
    """The shots and the cast files, from 1, that a shot was compared with by a measure."""
    by = {"identity": references.identity, "similarity": references.identity, "place": references.place}
    blocks = by.get(measure, ())
    shots = sorted({plan.blocks[index].shot + 1 for index in blocks if index >= 0})
    return shots, sorted(-index for index in blocks if index < 0)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
