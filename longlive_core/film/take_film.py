"""Films that live in a take: every block is on disk before it is handed on, and what is there is not made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ..sampling.generation import Generation, KnownLatents
from ..script import BlockPlan, ShotScript
from ..script.from_plan import script_of
from ..take.block_file import BadBlock, Facts, History, latents_digest, load_block, save_block
from ..take.from_video import check_video
from ..take.lock import TakeLock
from ..take.retake_once import with_versions_of
from ..take.take import Shot, Take, Version
from ..types import Block, BlockSpec
from .film import Begin, Drawable, Drawn, OnStep, ShouldStop
from .live_script import LiveScript
from .take_run import TakeRun


class KeptFilm:
    """A film made elsewhere whose blocks a take keeps; a `Drawable`.

        film = KeptFilm(film, take)     # the film goes on where the take stands
        for block in film.draw():       # each one is on disk before it comes
            ...

    The take must be of the film's own plan; its blocks are those of the versions that are chosen in it.
    """

    def __init__(self, film: Drawable, take: Take, live: LiveScript | None = None) -> None:
        """Reads what is there. live: the script that the film follows. Raises ValueError where the take is another
        film's."""
        self.take = take
        self._film = film
        self._live = live
        self._noted = film.plan.blocks
        self._on_disk: dict[int, Facts] = {}
        self._catch_up()

    @property
    def plan(self) -> BlockPlan:
        return self._film.plan

    @property
    def finished(self) -> int:
        return self._film.finished

    @property
    def kept(self) -> int:
        return self._film.kept

    @property
    def complete(self) -> bool:
        return self._film.complete

    @property
    def needs_model(self) -> bool:
        self._catch_up()
        return self._film.needs_model

    def draw(self, on_step: OnStep | None = None, should_stop: ShouldStop | None = None) -> Iterator[Block]:
        """As the film's own; raises OSError too, where a block cannot be kept."""
        yield from self.drawn(on_step, should_stop)

    def drawn(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Drawn:
        self._catch_up()
        history = History()
        with ExitStack() as held:
            if self._film.needs_model:
                held.enter_context(TakeLock(self.take.folder))
            blocks = held.enter_context(closing(self._film.drawn(on_step, should_stop)))
            while True:
                try:
                    block = next(blocks)
                except StopIteration as end:
                    return end.value
                history = self._keep(block, history)
                yield block

    def made(self) -> Sequence[Block]:
        return self._film.made()

    def resume(self, blocks: Sequence[Block]) -> None:
        self._film.resume(blocks)

    def _catch_up(self) -> None:
        """What is in the take and not in the film, from before or for a retake since, is not made again."""
        if self.complete or len(_standing(self.take, self.take.plan)) <= self.kept:
            return
        read = tuple(_read(self.take))
        self._on_disk |= {block.index: facts for block, facts in read}
        self._film.resume([block for block, _ in read])

    def _keep(self, block: Block, history: History) -> History:
        """Writes the block, where it is not there already, and returns the history behind it."""
        if self._noted[block.index] != block.spec:
            # As it is on disk: a retake may have been ordered meanwhile.
            take = with_versions_of(self.take, Take.load(self.take.folder))
            self.take = followed(take, self._film.plan, self._live)
            self.take.save()
            self._noted = self.take.plan.blocks
        path, facts = self.take.path(block.spec), Facts(history, latents_digest(block.latents))
        if self._on_disk.get(block.index) != facts or not path.is_file():
            save_block(path, block, self.take.settings, history)
            self._on_disk[block.index] = facts
        return history.then(facts.digest)


def followed(take: Take, plan: BlockPlan, live: LiveScript | None = None) -> Take:
    """The take of a film whose script has changed while it was made: from the first shot that differs on, shots are new
    versions, chosen, since they were made after others. The earlier ones stay, as of a ripple."""
    full = script_of(plan)
    first = next(i for i, shot in enumerate(script_of(take.plan).shots) if shot != full.shots[i])
    changed = range(first, len(full.shots))
    written = full if live is None or len(live.script.shots) != len(full.shots) else live.script  # as a person wrote it
    noted = _noted(take, written, changed)
    if noted is not None and noted.plan.blocks == plan.blocks:
        return noted
    # What the take's own names and style do not give is told in full.
    shots = tuple(_with_version(shot, full, i) if i in changed else shot for i, shot in enumerate(take.shots))
    return replace(take, script=full, shots=shots)


def _noted(take: Take, written: ShotScript, changed: range) -> Take | None:
    """The take with these shots of a script; None where only that script knows a name in them."""
    try:
        for index in changed:
            take = take.with_shot(index, _with_version(take.shots[index], written, index))
    except ValueError:
        return None
    return take


def _with_version(shot: Shot, script: ShotScript, index: int) -> Shot:
    version = Version(script.shots[index].text, script.shots[index].seed, "live")
    return replace(shot, versions=(*shot.versions, version), chosen=len(shot.versions))


class TakeFilm:
    """The film of a take as chosen; a `Drawable`. What is missing in it, anywhere, is made and kept.

    Nothing is held in memory: the take is asked each time, and may be changed meanwhile.
    """

    def __init__(self, take: Take, begin: Begin, on_note: Callable[[str], None] | None = None) -> None:
        """begin: with the settings of the take. on_note: told what is made anew, and why."""
        self.take = take
        self.plan = take.plan
        self._begin = begin
        self._on_note = on_note
        self._intact = False

    @property
    def finished(self) -> int:
        """How many blocks are there before the first one that is not."""
        return len(_standing(self.take, self.plan))

    @property
    def kept(self) -> int:
        return self.finished

    @property
    def complete(self) -> bool:
        return self.finished == len(self.plan.blocks)

    @property
    def needs_model(self) -> bool:
        """Whether the next draw makes something. Where all seems to be there, every block is read once, to be sure."""
        if not self.complete:
            return True
        self._intact = self._intact or sum(1 for _ in _read(self.take)) == len(self.plan.blocks)
        return not self._intact

    def draw(self, on_step: OnStep | None = None, should_stop: ShouldStop | None = None) -> Iterator[Block]:
        """Raises as `TakeRun` does, and ValueError where blocks are missing that cannot be made."""
        yield from self.drawn(on_step, should_stop)

    def drawn(self, on_step: OnStep | None, should_stop: ShouldStop | None) -> Drawn:
        check_video(self.take)
        start = start_frame(self.take)

        def begin(known: KnownLatents) -> Generation:
            def known_or_start(spec: BlockSpec) -> Tensor | None:
                latents = known(spec)
                return start if latents is None and spec.index == 0 else latents

            return self._begin(self.plan, known_or_start, on_step, should_stop)

        with TakeLock(self.take.folder) if self.needs_model else nullcontext():
            for block in TakeRun(self.take, begin, self._on_note).blocks():
                yield Block(block.spec, block.latents.to("cpu", torch.float32))

    def made(self) -> Sequence[Block]:
        return kept_blocks(self.take)

    def resume(self, blocks: Sequence[Block]) -> None:
        """Nothing: the take itself has what is made."""


def kept_blocks(take: Take) -> tuple[Block, ...]:
    """The blocks of a take's film as chosen, read and checked, up to the first that is not there as it should be."""
    return tuple(block for block, _ in _read(take))


def as_first_made(take: Take) -> Take:
    """The film that the take was begun with, whatever versions are chosen now."""
    for index, shot in enumerate(take.shots):
        if shot.chosen or shot.spliced:
            take = take.with_shot(index, replace(shot, chosen=0, spliced=False))
    return take


def start_frame(take: Take) -> Tensor | None:
    """The start image of a take's film, `[1, C, 1, H, W]`: each version of its first block begins with it.

    Raises ValueError where none of these is left.
    """
    if not str(take.settings.get("start") or "").startswith("image"):
        return None
    first = take.shots[0]
    for version in range(len(first.versions)):
        seen = take.with_shot(0, replace(first, chosen=version))
        spec = seen.plan.blocks[0]
        try:
            return load_block(seen.path(spec), spec, take.settings)[0].latents[:, :, :1]
        except (FileNotFoundError, BadBlock):
            continue
    raise ValueError(
        f"{take.folder} begins with an image, and its first block, which has it, is not there: queue the workflow that "
        "the image is in"
    )


def _read(take: Take) -> Iterator[tuple[Block, Facts]]:
    for spec in _standing(take, take.plan):
        try:
            yield load_block(take.path(spec), spec, take.settings)
        except (FileNotFoundError, BadBlock):
            return


def _standing(take: Take, plan: BlockPlan) -> list[BlockSpec]:
    """The film's first blocks, as far as they are there and were made after each other, their latents unread."""
    history, found = History(), list[BlockSpec]()
    for spec in plan.blocks:
        facts = take.facts(spec)
        if facts is None or (facts.history != history and not take.ignores_history(spec)):
            break
        history = history.then(facts.digest)
        found.append(spec)
    return found
