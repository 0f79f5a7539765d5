"""The blocks of a take in film order: what is on disk as it is, what is missing made and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor

from ..sampling.generation import Generation, KnownLatents
from ..sampling.snapshot import Snapshot
from ..take.block_file import BadBlock, Facts, History, load_block, save_block, write_whole
from ..take.take import Take
from ..types import Block, BlockSpec


class Begin(Protocol):
    """Starts a generation of the take's film that asks for what is known of each block."""

    def __call__(self, known: KnownLatents) -> Generation: ...


class TakeRun:
    """One way through a take's film.

    Where blocks are missing, damaged or made after others than now stand before them, they are sampled anew. The
    memory is rebuilt for it by the clean passes of the blocks before, in order, which leaves the very memory that
    their own run left: a block made so is the uninterrupted run's, bit for bit, on the same device and precision.
    A snapshot of the memory at the beginning of a shot, where one of this very history is kept, saves the clean
    passes before it.

    `kept` and `sampled` are the blocks so far by index, `replayed` counts clean passes run only to remember.
    """

    def __init__(
        self, take: Take, begin: Begin, on_note: Callable[[str], None] | None = None, *, snapshots: bool = False
    ) -> None:
        """on_note: told in words, when it happens, what is made anew and why. snapshots: keep them at shots."""
        self.take = take
        self.kept: list[int] = []
        self.sampled: list[int] = []
        self.replayed = 0
        self._begin = begin
        self._on_note = on_note
        self._snapshots = snapshots
        self._histories: list[History] = []

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
            self._histories.append(history)
            found = self._find(spec, history)
            if found is not None:
                block, facts = found
                digest = facts.digest
                self.kept.append(spec.index)
            else:
                generation = generation or self._remember(spec)
                block = self._make(generation, spec)
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
        if facts.history != history and not self.take.ignores_history(spec):
            self._tell(f"{path} was made after other blocks: block {spec.index} is made anew")
            return None
        return block, facts

    def _is_hole(self, spec: BlockSpec) -> bool:
        """Whether a block is missing that was there once: later ones are, and its version is not being made."""
        if spec.index - 1 in self.sampled or not self.take.path(spec).parent.is_dir():
            return False
        later = self.take.plan.blocks[spec.index + 1 :]
        return any(self.take.path(one).is_file() and not self.take.is_preview(one) for one in later)

    def _tell(self, note: str) -> None:
        if self._on_note is not None:
            self._on_note(note)

    def _known(self, spec: BlockSpec) -> Tensor | None:
        """Latents of the blocks that were found, from disk: a long film's are not held in memory."""
        if spec.index not in self.kept:
            return None
        return load_block(self.take.path(spec), spec, self.take.settings)[0].latents

    def _make(self, generation: Generation, spec: BlockSpec) -> Block | None:
        """The block, sampled behind those before it; None after a stop."""
        while generation.position < spec.index:
            before = self.take.plan.blocks[generation.position]
            if self._snapshots and before.index and self.take.is_preview(before):
                self._keep_memory(generation, before)
            if next(generation, None) is None:
                return None
            self.replayed += 1
        if self._snapshots and spec.index and self.take.plan.begins_shot(spec):
            self._keep_memory(generation, spec)
        return next(generation, None)

    def _remember(self, spec: BlockSpec) -> Generation:
        """A generation that can be brought to this block: at the newest shot whose memory is kept, or at the start."""
        generation, before = self._begin(self._known), self.take.plan.blocks[1 : spec.index + 1]
        for shot in reversed([block for block in before if self.take.plan.begins_shot(block)]):
            path = self.take.memory_path(shot, self._histories[shot.index])
            try:
                generation.restore(Snapshot.load(path))
            except FileNotFoundError:
                continue
            except ValueError as error:
                self._tell(f"{error}: the memory before shot {shot.shot + 1} is rebuilt")
                continue
            break
        if generation.position < spec.index:
            blocks = spec.index - generation.position
            self._tell(f"memory is rebuilt, exactly, from the {blocks} blocks before block {spec.index}")
        return generation

    def _keep_memory(self, generation: Generation, spec: BlockSpec) -> None:
        """The memory at the beginning of a shot. A film is not lost for want of it: a failure is only told."""
        path = self.take.memory_path(spec, self._histories[spec.index])
        if path.is_file():
            return
        try:
            write_whole(path, generation.snapshot().save)
        except OSError as error:
            self._tell(f"no memory is kept before shot {spec.shot + 1}: {error}")
