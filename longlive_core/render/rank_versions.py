"""Scores versions of a shot by their continuity with the film."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ..evaluation.continuity import ShotScore, score_shot
from ..evaluation.features import Embed
from ..evaluation.film_facts import FilmFacts, film_facts
from ..evaluation.references import References, references_of
from ..evaluation.windows import decode_frames
from ..take import Take
from ..take.block_file import load_block
from ..take.cast import Cast
from ..types import TIME_FACTOR
from ..vae import WanVAE
from ..video import read_frames


@dataclass(frozen=True, slots=True, order=True)
class VersionScore:
    """The continuity of a version. The order is that of the fields, because one missed cut makes the first one 0.

    score: of the worst measure, cuts included. without_cuts: of the worst other measure. mean: of all measures.
    """

    score: float
    without_cuts: float
    mean: float

    @classmethod
    def of(cls, own: ShotScore, next_cut: float | None = None) -> VersionScore:
        """own: of the shot. next_cut: the score of the cut at the end of the shot, if there is one."""
        cuts = [value for value in (own.scores.get("cut"), next_cut) if value is not None]
        others = [value for name, value in own.counted.items() if name != "cut"]
        return cls(min((*cuts, *others), default=1.0), min(others, default=1.0), fmean((*cuts, *others) or (1.0,)))

    @property
    def text(self) -> str:
        """The score in a few words, with a mark where only cuts make it worse than the other measures."""
        mark = f" (cuts differ from the script, else {self.without_cuts:.2f})"
        return f"{self.score:.2f}{mark if self.score < self.without_cuts else ''}"


@dataclass(frozen=True, slots=True)
class FilmScores:
    """What versions of shots are compared with: the facts of the film as it is, and which blocks by its script.

    embed: the vision model of the film's features, which versions get as well.
    """

    facts: FilmFacts
    references: Sequence[References]
    embed: Embed | None = None

    @classmethod
    def of(
        cls,
        take: Take,
        places: Sequence[str] = (),
        subjects: Sequence[str] = (),
        facts: FilmFacts | None = None,
        embed: Embed | None = None,
    ) -> FilmScores:
        """Reads the film of a take. places, subjects: see `references_of`. facts: of the film, where they are known.
        embed: see the class.

        Raises FileNotFoundError without the film, and ValueError as `references_of`, `film_facts` and `Cast.of_take`.
        """
        references = references_of(take.script, take.plan, places, subjects)
        if facts is None and not take.film.exists():
            missing = f"{take.film}, the film of {take.folder}, is missing"
            raise FileNotFoundError(f"{missing}; resume its render to write it")
        cards = enumerate(Cast.of_take(take).cards, 1)
        stills = {-number: card.still.numpy() for number, card in cards if card.still is not None}
        facts = facts or film_facts(read_frames(take.film), take.plan.blocks, embed=embed)
        return cls(facts.with_stills(stills, embed), references, embed)

    def of_versions(self, take: Take, vae: WanVAE, shot: int, versions: Iterable[int]) -> dict[int, VersionScore]:
        """The scores of versions of a shot (from 0), the best one first; decodes each with the blocks beside it."""
        drafts = {version: take.with_shot(shot, replace(take.shots[shot], chosen=version)) for version in versions}
        scores = {version: self._score(draft, vae, shot) for version, draft in drafts.items()}
        return dict(sorted(scores.items(), key=lambda item: item[1], reverse=True))

    def _score(self, take: Take, vae: WanVAE, shot: int) -> VersionScore:
        """The score of a shot of a take, and of the cut after it."""
        blocks = take.plan.blocks_of_shots[shot]
        specs = take.plan.blocks[max(0, blocks[0].index - 1) : blocks[-1].index + 2]
        loaded = [load_block(take.path(spec), spec, take.settings)[0] for spec in specs]
        # The decoder makes one frame of the first latent frame that it is given, as if a film began with it.
        first = specs[0].video_start + (TIME_FACTOR - 1) * (specs[0].index > 0)
        part = film_facts(decode_frames(vae, loaded), specs, first, embed=self.embed)
        facts = self.facts.with_part(part)
        own = score_shot(facts, take.plan, self.references[shot], shot)
        if shot + 1 == take.plan.shots:
            return VersionScore.of(own)
        return VersionScore.of(own, score_shot(facts, take.plan, self.references[shot + 1], shot + 1).scores["cut"])
