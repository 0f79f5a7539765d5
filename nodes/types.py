"""The values on the nodes' wires. ComfyUI compares types by name, so a published name cannot change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comfy.latent_formats import LatentFormat
from comfy_api.latest import io
from torch import Tensor

from ..longlive_core.film.film import Film
from ..longlive_core.film.live_script import LiveScript
from ..longlive_core.script import BlockPlan, ShotScript
from ..longlive_core.script.cast import CastEntry
from ..longlive_core.take.cast import NO_CAST, Cast
from ..longlive_core.take.settings import Settings
from .film_spec import FilmSpec
from .sources import Sources


@dataclass(frozen=True)
class Shots:
    """A script and its block plan. cast: the files that it recalls. given: those that it does not name."""

    script: ShotScript
    plan: BlockPlan
    cast: Cast = NO_CAST
    given: tuple[CastEntry, ...] = ()


@dataclass(frozen=True)
class ShotConditioning:
    """A plan with the embedding `[L, text_dim]` of each distinct prompt; `negative` is what guidance avoids.

    script: the script of the plan, if it was written as one. encode: encodes prompts that are added later. cast, given:
    those of `Shots`.
    """

    plan: BlockPlan
    embeddings: Mapping[str, Tensor]
    negative: str
    encode: Callable[[str], Tensor]
    script: ShotScript | None = None
    cast: Cast = NO_CAST
    given: tuple[CastEntry, ...] = ()


@dataclass(frozen=True)
class Stream:
    """A film that is made while another node iterates it.

    spec: what samples the film. node, title: id and name of the node that samples it and shows its progress. earlier:
    the stream that this one continues. recorded: the node's settings that change a block's bits, None for a stream that
    samples nothing. script: the script of the whole film, if the user wrote one. live: the script of this node's shots,
    which may change while the film is sampled. notes: what the node says beside its progress. sources: the nodes that
    lead to this one, None if it is not known. cast: the cast files that shots of the whole film recall.
    """

    film: Film
    spec: FilmSpec
    node: str
    title: str
    earlier: Stream | None = None
    recorded: Settings | None = None
    script: ShotScript | None = None
    live: LiveScript | None = None
    notes: tuple[str, ...] = ()
    sources: Sources | None = None
    cast: Cast = NO_CAST

    @property
    def chain(self) -> list[Stream]:
        """The streams of the film, from the first one to this one."""
        return [*([] if self.earlier is None else self.earlier.chain), self]

    @property
    def unfinished(self) -> list[Stream]:
        """The streams of the chain that the next run samples; empty if it only reads stored blocks."""
        if not self.film.needs_model:
            return []
        return [*([] if self.earlier is None else self.earlier.unfinished), self]

    @property
    def changed_scripts(self) -> dict[str, str]:
        """The scripts that were changed while the film was made, by the node that samples their shots."""
        lives = {member.node: member.live for member in self.chain if member.live is not None}
        return {node: live.text for node, live in lives.items() if live.text is not None}

    @property
    def first(self) -> int:
        """The index of the first block that this stream adds to the earlier streams."""
        return 0 if self.earlier is None else len(self.earlier.film.plan.blocks)

    def owner(self, block: int) -> Stream:
        """Returns the stream of the chain that adds the block with this index."""
        return self if self.earlier is None or block >= self.first else self.earlier.owner(block)

    @property
    def latent_format(self) -> LatentFormat:
        """The latent format of the MODEL."""
        return self.spec.model.model.latent_format


ShotsType = io.Custom("LONGLIVE_SHOTS")
ConditioningType = io.Custom("LONGLIVE_SHOT_CONDITIONING")
MemoryType = io.Custom("LONGLIVE_MEMORY")
StreamType = io.Custom("LONGLIVE_STREAM")
StateType = io.Custom("LONGLIVE_STATE")
TakeType = io.Custom("LONGLIVE_TAKE")
CastType = io.Custom("LONGLIVE_CAST")

# The value is the same. An input for a film takes both, so that a bypassed node passes on the film that it continues.
FILM_TYPES = [StreamType, StateType]

CATEGORY = "LongLive"
