"""The storyboard of a take: the first block of every shot, kept where the whole film will find it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from ..take.block_file import BadBlock, Facts, History, load_block, save_block
from ..take.take import Shot, Take
from ..take.versions import Retake, retake
from ..types import Block, BlockSpec
from .storyboard import board_blocks, storyboard
from .take_run import TakeRun


class BoardRun(TakeRun):
    """One way through a take's storyboard: what is on disk as it is, what is missing made behind the blocks before it.

    A block stays whatever now stands before it. `kept` and `sampled` are indices of the storyboard.
    """

    def blocks(self) -> Iterator[Block]:
        """Every block of the storyboard, each on disk before it is handed on; fewer after a stop. Raises OSError."""
        history, generation = History(), None
        for spec, whole in zip(storyboard(self.take.plan).blocks, board_blocks(self.take.plan), strict=True):
            found = self._on_disk(whole)
            if found is not None:
                latents, digest = found[0].latents, found[1].digest
                self.kept.append(spec.index)
            else:
                generation = generation or self._begin(self._known)
                made = self._make(generation, spec)
                if made is None:
                    return
                latents = made.latents
                digest = save_block(self.take.path(whole), Block(whole, latents), self.take.settings, history)
                self.sampled.append(spec.index)
            yield Block(spec, latents)
            history = history.then(digest)

    def _on_disk(self, whole: BlockSpec) -> tuple[Block, Facts] | None:
        try:
            return load_block(self.take.path(whole), whole, self.take.settings)
        except FileNotFoundError:
            return None
        except BadBlock as error:
            self._tell(f"{error}: block {whole.index} is made anew")
            return None

    def _known(self, spec: BlockSpec) -> Tensor | None:
        if spec.index not in self.kept:
            return None
        whole = board_blocks(self.take.plan)[spec.index]
        return load_block(self.take.path(whole), whole, self.take.settings)[0].latents


def put_on_board(take: Take) -> Take:
    """The take with every shot whose first block is yet to be made, made for the storyboard; not yet saved."""
    for spec in board_blocks(take.plan):
        try:
            load_block(take.path(spec), spec, take.settings)
        except (FileNotFoundError, BadBlock):
            take = _with_shot(take, spec.shot, _previewed(take.shots[spec.shot]))
    return take


def retake_board(take: Take, number: int, seed: int | None = None, prompt: str | None = None) -> Retake:
    """A new version of shot `number` (from 1) for the storyboard; the other shots stay as they are.

    Raises ValueError where there is none of it on the storyboard, or blocks of later shots were made after what it is
    now, and what `retake` raises.
    """
    changed = retake(take, number, seed, prompt, "keep")
    if not any(spec.shot == changed.shot for spec in board_blocks(take.plan)):
        raise ValueError(
            f"shot {number} goes on without a cut, so the storyboard has no block of it; `longlive retake` without "
            "--preview makes it again"
        )
    for spec in take.plan.blocks:
        if spec.shot > changed.shot and not take.ignores_history(spec) and take.path(spec).is_file():
            raise ValueError(
                f"shot {spec.shot + 1} is made already, after shot {number} as it is; `longlive retake` without "
                "--preview makes both again"
            )
    shot = _previewed(changed.take.shots[changed.shot])
    return changed._replace(take=_with_shot(replace(changed.take, shots=take.shots), changed.shot, shot))


def _previewed(shot: Shot) -> Shot:
    """A shot whose chosen version is made for the storyboard."""
    version = replace(shot.versions[shot.chosen], made="preview")
    return replace(shot, versions=(*shot.versions[: shot.chosen], version, *shot.versions[shot.chosen + 1 :]))


def _with_shot(take: Take, index: int, shot: Shot) -> Take:
    """The take with another shot of the same text and seed."""
    return replace(take, shots=(*take.shots[:index], shot, *take.shots[index + 1 :]))
