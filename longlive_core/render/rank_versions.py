"""Scores versions of a shot by their continuity with the film."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..evaluation.continuity import score_shot
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
        film: Path | None = None,
        embed: Embed | None = None,
    ) -> FilmScores:
        """Reads the film of a take. places, subjects: see `references_of`. film: its file, where it is elsewhere.

        Raises FileNotFoundError without the film, and ValueError as `references_of`, `film_facts` and `Cast.of_take`.
        """
        references = references_of(take.script, take.plan, places, subjects)
        film = film or take.film
        if not film.exists():
            raise FileNotFoundError(f"{film}, the film of {take.folder}, is missing; resume its render to write it")
        cards = enumerate(Cast.of_take(take).cards, 1)
        stills = {-number: card.still.numpy() for number, card in cards if card.still is not None}
        facts = film_facts(read_frames(film), take.plan.blocks, embed=embed).with_stills(stills, embed)
        return cls(facts, references, embed)

    def of_versions(self, take: Take, vae: WanVAE, shot: int, versions: Iterable[int]) -> dict[int, float]:
        """The scores of versions of a shot (from 0), the best one first; decodes each with the blocks beside it."""
        drafts = {version: take.with_shot(shot, replace(take.shots[shot], chosen=version)) for version in versions}
        scores = {version: self._score(draft, vae, shot) for version, draft in drafts.items()}
        return dict(sorted(scores.items(), key=lambda item: -item[1]))

    def _score(self, take: Take, vae: WanVAE, shot: int) -> float:
        """The score of a shot of a take, and of the cut after it."""
        own = take.plan.blocks_of_shots[shot]
        specs = take.plan.blocks[max(0, own[0].index - 1) : own[-1].index + 2]
        blocks = [load_block(take.path(spec), spec, take.settings)[0] for spec in specs]
        # The decoder makes one frame of the first latent frame that it is given, as if a film began with it.
        first = specs[0].video_start + (TIME_FACTOR - 1) * (specs[0].index > 0)
        part = film_facts(decode_frames(vae, blocks), specs, first, embed=self.embed)
        facts = self.facts.with_part(part)
        scores = [score_shot(facts, take.plan, self.references[shot], shot).score]
        if shot + 1 < take.plan.shots:
            scores.append(score_shot(facts, take.plan, self.references[shot + 1], shot + 1).scores["cut"] or 0.0)
        return min(scores)
