"""The cast of a film: the blocks of its script's cast files, of which its take has copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..script import ShotScript
from ..script.cast import SUFFIX, CastEntry
from ..types import Block, BlockSpec
from .cast_file import Card
from .settings import Setting, Settings
from .take import CAST, Take


@dataclass(frozen=True, slots=True)
class Cast:
    """The cards of a film in the order of its script, by the names that the script has for them."""

    cards: tuple[Card, ...] = ()

    @classmethod
    def read(cls, script: ShotScript, find: Callable[[str], Path]) -> Cast:
        """Reads the cast files of a script. Raises ValueError for a file that is missing or damaged.

        find: where the file with a path of the script is.
        """
        return cls(tuple(replace(Card.load(find(file.path)), name=file.name) for file in script.cast))

    @classmethod
    def of_take(cls, take: Take) -> Cast:
        """Reads the copies in a take. Raises ValueError for one that is missing or another one."""
        cards = list[Card]()
        for index, file in enumerate(take.script.cast):
            path = _path(take, index)
            remedy = f"copy {file.path} to {path}, or render a new film"
            try:
                cards.append(replace(Card.load(path), name=file.name))
            except ValueError as error:
                raise ValueError(f"{take.folder} has lost the cast '{file.name}' ({error}); {remedy}") from error
        cast = cls(tuple(cards))
        if cast.recorded != (take.settings.get("cast") or ""):
            recorded = take.settings.get("cast")
            raise ValueError(f"{take.folder} has another cast: it was {recorded}, now {cast.recorded}; put it back")
        return cast

    def save(self, take: Take) -> None:
        """Writes the copies of a new take. Raises OSError."""
        for index, card in enumerate(self.cards):
            card.save(_path(take, index))

    def check(self, recorded: Settings, transformer: str) -> None:
        """Raises ValueError if a film of these settings and this transformer cannot recall one of the cards."""
        for card in self.cards:
            card.check_film(recorded, transformer)

    @property
    def recorded(self) -> Setting:
        """What the take records: the name and the digest of each card; "" for none."""
        return ",".join(f"{card.name}:{card.digest}" for card in self.cards)

    @property
    def files(self) -> tuple[CastEntry, ...]:
        """The cards as a script names them; the paths are only names."""
        return tuple(CastEntry(card.name, f"{card.name}{SUFFIX}") for card in self.cards)

    @property
    def blocks(self) -> Sequence[Block]:
        """The blocks as the sampler takes them, numbered -1, -2, …"""
        return tuple(Block(spec, card.latents) for spec, card in zip(self.specs, self.cards, strict=True))

    @property
    def specs(self) -> tuple[BlockSpec, ...]:
        """The specs of `blocks`, whose prompts their clean passes need."""
        return tuple(_spec(card, -number) for number, card in enumerate(self.cards, 1))


NO_CAST = Cast()


def _spec(card: Card, index: int) -> BlockSpec:
    frames = card.latents.shape[2]
    return BlockSpec(index, index, card.prompt, cut=False, seed=None, start=index * frames, frames=frames)


def _path(take: Take, index: int) -> Path:
    return take.folder / CAST / f"{index + 1:03}{SUFFIX}"
