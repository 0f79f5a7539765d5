"""Scores of shots for what should stay: identity, place, colour, no jump at seams, and cuts where the script has them.

A score is in [0, 1], 1 for no difference, and the score of a shot is that of its worst measure. What a shot is compared
with follows from the script:

    identity   the subject of the blocks that it recalls, else of the film's first block, in any light
    place      the surroundings of the blocks that it recalls; without a cut, those of the shot before; else nothing
    colour     all colours of the shot's first block
    seam       the steps between frames beside each boundary of its blocks
    cut        the script: a cut is found at its start, or not there, and nowhere else

With a vision model (`features.py`) there is a sixth figure, the similarity: the cosine of the embeddings of the shot's
frames and of those that identity is compared with. It is shown beside the score and stays out of it, since cosines
have no common scale: how much two scenes with one subject differ depends on the model and on the place, which the model
sees, too. It enters the score only where identity cannot be read, because no subject stands out by its colours, and the
script brings a block or a subject back, so that the shot has to look like it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from ..script import BlockPlan
from ..types import TIME_FACTOR, BlockSpec
from .colours import Floats, distance, relit_distance
from .features import cosine_distance
from .film_facts import FilmFacts
from .pixels import CUT_TOLERANCE
from .references import References

Distance = Callable[[Floats, Floats], float]
Measure = Literal["identity", "place", "colour", "seam", "cut"]
Similarity = Literal["similarity"]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)

LIMIT: Final = 0.8  # scores below it are faults; chosen with tests/benchmarks/bench_continuity.py
# Distances of colours, in levels of 255, at which a score is 0.
IDENTITY_SCALE, PLACE_SCALE, COLOUR_SCALE = 120.0, 80.0, 30.0
SEAM_LEVELS: Final = 1.0  # a seam may step by this many levels more than the frames beside it


@dataclass(frozen=True, slots=True)
class ShotScore:
    """The scores of a shot (from 0). A measure that has nothing to compare is None.

    similarity: by a vision model, None without one. stands_in: whether it counts, in the place of identity.
    """

    shot: int
    scores: Mapping[Measure, float | None]
    similarity: float | None = None
    stands_in: bool = False

    @property
    def counted(self) -> dict[Measure | Similarity, float]:
        """The figures that have something to compare and count, in the order of a report."""
        figures: dict[Measure | Similarity, float | None] = {**self.scores}
        if self.stands_in:
            figures["similarity"] = self.similarity
        return {name: value for name, value in figures.items() if value is not None}

    @property
    def score(self) -> float:
        """The score of the worst measure."""
        return min(self.counted.values(), default=1.0)

    @property
    def worst(self) -> Measure | Similarity | None:
        """The worst measure; None if every one is 1 or has nothing to compare."""
        counted = self.counted
        return min((name for name in counted if counted[name] < 1.0), key=lambda name: counted[name], default=None)


def score_film(facts: FilmFacts, plan: BlockPlan, references: Sequence[References]) -> tuple[ShotScore, ...]:
    """The scores of every shot of a film, in its order."""
    return tuple(score_shot(facts, plan, references[shot], shot) for shot in range(plan.shots))


def score_shot(facts: FilmFacts, plan: BlockPlan, references: References, shot: int) -> ShotScore:
    """The scores of a shot (from 0)."""
    blocks = plan.blocks_of_shots[shot]
    own = [facts.blocks[block.index] for block in blocks]
    subjects = [facts.blocks[index].subject for index in references.identity if index in facts.blocks]
    places = [facts.blocks[index].place for index in references.place if index in facts.blocks]
    scores: dict[Measure, float | None] = {
        "identity": _likeness([block.subject for block in own], subjects, IDENTITY_SCALE, relit_distance),
        "place": _likeness([block.place for block in own], places, PLACE_SCALE),
        "colour": _likeness([block.whole for block in own[1:]], [own[0].whole], COLOUR_SCALE),
        "seam": min((_seam(facts.steps, block.video_start) for block in blocks[1:]), default=None),
        "cut": _cut(facts.found, plan, blocks),
    }
    seen = [facts.features.get(block.index) for block in blocks]
    similarity = _likeness(seen, [facts.features.get(index) for index in references.identity], 1.0, cosine_distance)
    brought_back = references.identity != (0,) or 0 in blocks[0].recalled
    stands_in = similarity is not None and scores["identity"] is None and brought_back
    return ShotScore(shot, scores, similarity, stands_in)


def either_of_recalled(score: ShotScore, plan: BlockPlan) -> ShotScore:
    """The score of a shot where nobody says whether the blocks that it recalls stand for a subject or for a place.

    One of them has to come back: the other one is then left out.
    """
    identity, place = score.scores["identity"], score.scores["place"]
    if not plan.blocks_of_shots[score.shot][0].recalled or identity is None or place is None:
        return score
    other: Measure = "place" if identity >= place else "identity"
    return score if max(identity, place) < LIMIT else replace(score, scores={**score.scores, other: None})


def _likeness(
    own: Sequence[Floats | None], others: Sequence[Floats | None], scale: float, apart: Distance = distance
) -> float | None:
    """Of each distribution, the likeness to the nearest of the others; the least of these. None without a pair."""
    known = [other for other in others if other is not None]
    nearest = [min(apart(one, other) for other in known) for one in own if one is not None and known]
    return max(0.0, 1 - max(nearest) / scale) if nearest else None


def _seam(steps: Mapping[int, float], seam: int) -> float:
    """The largest step beside a seam, at a boundary of latent frames like itself, as a part of that at the seam."""
    beside = max((steps[frame] for frame in (seam - TIME_FACTOR, seam + TIME_FACTOR) if frame in steps), default=0.0)
    return min(1.0, (beside + SEAM_LEVELS) / max(steps[seam], SEAM_LEVELS))


def _cut(found: frozenset[int], plan: BlockPlan, blocks: Sequence[BlockSpec]) -> float:
    """1 if the cuts that were found in a shot are those of the script, else 0."""
    start, end = blocks[0].video_start, blocks[-1].video_start + blocks[-1].video_frames
    at_start = {cut for cut in found if abs(cut - start) <= CUT_TOLERANCE}
    following = plan.blocks[blocks[-1].index + 1] if blocks[-1].index + 1 < len(plan.blocks) else None
    belongs_to_next = CUT_TOLERANCE if following is not None else -1
    inside = {cut for cut in found - at_start if start < cut < end - belongs_to_next}
    return float(bool(at_start) == blocks[0].cut and not inside)
