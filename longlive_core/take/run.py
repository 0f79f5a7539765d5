"""The blocks of a take in film order: what is on disk as it is, what is missing made and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from ..generation import Generation
from ..types import Block, BlockSpec
from .blocks import BadBlock, Facts, History, load_block, save_block
from .take import Take


class Begin(Protocol):
    """Starts a generation of the take's film whose first blocks are known."""

    def __call__(self, prefix: Tensor | None) -> Generation: ...


class TakeRun:
    """One way through a take's film.

    Where blocks are missing, damaged or made after others than now stand before them, they are sampled anew. The
    memory is rebuilt for it by the clean passes of all blocks before, in order, which leaves the very memory that
    their own run left: a block made so is the uninterrupted run's, bit for bit, on the same device and precision.

    `kept` and `sampled` are the blocks so far by index, `replayed` counts clean passes run only to remember.
    """

    def __init__(self, take: Take, begin: Begin, on_note: Callable[[str], None] | None = None) -> None:
        """on_note: told in words, when it happens, what is made anew and why."""
        self.take = take
        self.kept: list[int] = []
        self.sampled: list[int] = []
        self.replayed = 0
        self._begin = begin
        self._on_note = on_note

    def share_of_calls(self, steps: int) -> float:
        """Model calls so far over those that would have sampled the same blocks: `steps` and a clean pass each."""
        made = len(self.kept) + len(self.sampled)
        return (len(self.sampled) * (steps + 1) + self.replayed) / max(1, made * (steps + 1))

    def blocks(self) -> Iterator[Block]:
        """Every block of the film, each on disk before it is handed on; fewer after a stop.

        Raises OSError where a block cannot be kept, and what the generation raises.
        """
        history, generation = History(), None
        for spec in self.take.plan.blocks:
            found = self._find(spec, history)
            if found is not None:
                block, facts = found
                digest, generation = facts.digest, None
                self.kept.append(spec.index)
            else:
                generation = generation or self._remember(spec)
                # A stop while memory was rebuilt leaves the generation at an earlier block.
                block = next(generation, None) if generation.position == spec.index else None
                if block is None:
                    return
                digest = save_block(self.take.path(spec), block, self.take.settings, history)
                self.sampled.append(spec.index)
            yield block
            history = history.then(digest)

    def _find(self, spec: BlockSpec, history: History) -> tuple[Block, Facts] | None:
        """The block on disk, if it can be used."""
        path = self.take.path(spec)
        try:
            block, facts = load_block(path, spec, self.take.settings)
        except FileNotFoundError:
            if self._is_hole(spec):
                self._tell(f"block {spec.index} (shot {spec.shot + 1}) is not there: it is made")
            return None
        except BadBlock as error:
            self._tell(f"{error}: block {spec.index} is made anew")
            return None
        if facts.history != history and not self.take.shots[spec.shot].spliced:
            self._tell(f"{path} was made after other blocks: block {spec.index} is made anew")
            return None
        return block, facts

    def _is_hole(self, spec: BlockSpec) -> bool:
        """Whether a block is missing that was there once: later ones are, and its version is not being made."""
        if spec.index - 1 in self.sampled or not self.take.path(spec).parent.is_dir():
            return False
        return any(self.take.path(later).is_file() for later in self.take.plan.blocks[spec.index + 1 :])

    def _tell(self, note: str) -> None:
        if self._on_note is not None:
            self._on_note(note)

    def _remember(self, spec: BlockSpec) -> Generation:
        """A generation that stands before this block."""
        before = self.take.plan.blocks[: spec.index]
        if not before:
            return self._begin(None)
        self._tell(f"memory is rebuilt, exactly, from the {len(before)} blocks before block {spec.index}")
        known = [load_block(self.take.path(one), one, self.take.settings)[0].latents for one in before]
        generation = self._begin(torch.cat(known, dim=2))
        for _ in before:
            self.replayed += next(generation, None) is not None
        return generation
