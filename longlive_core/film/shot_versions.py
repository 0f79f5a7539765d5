"""Several versions of one shot of a take, all sampled from one KV cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor

from ..sampling import Generation, Snapshot
from ..script import BlockPlan
from ..take import Shot, Take, Version
from ..take.history import history_before, version_history
from ..take.retake import Mode, check_unlocked, fresh_seeds, requested_version
from ..types import Block, BlockSpec
from .film import Film
from .sampler_settings import StartGeneration
from .take_store import TakeStore

MAX_VERSIONS = 16


class ShotVersions:
    """Makes several versions of a shot of a take; the versions that the film has stay chosen.

        versions = ShotVersions(take, number=2, count=4)
        for version, film in versions.films(start_generation):
            for block in film.run():        # the blocks of the film up to the end of the shot
                ...

    Every version follows the blocks that precede the shot in the film, so that a film with it equals one that was
    rendered with its text and seed, bit for bit; one that is sampled with others equals it as `FilmBatch` says. The KV
    cache before the shot is computed once and kept in host memory. A version is in the take as soon as its first block
    is stored. numbers: of the versions, in the order in which they are made: first those that are in the take and
    incomplete, then new ones with seeds that the shot has not had.
    """

    def __init__(
        self,
        take: Take,
        number: int,
        count: int,
        *,
        prompt: str | None = None,
        mode: Mode = "ripple",
        check: Callable[[], None] | None = None,
    ) -> None:
        """number: of the shot, from 1. prompt, mode: see `retake`; mode matters when a version is chosen later.

        check: see `TakeStore`. The caller holds the `TakeLock` and has loaded the take since. Raises ValueError for a
        count outside 1 … MAX_VERSIONS, for a shot that is locked or given, and for a prompt that sets a seed;
        ScriptError for the prompt.
        """
        if not 1 <= count <= MAX_VERSIONS:
            raise ValueError(f"{count} versions of a shot: make 1 to {MAX_VERSIONS} at a time")
        self.index, self._check = take.sampled_index(number), check
        self._take, shot = take, take.shots[self.index]
        check_unlocked(shot, number)
        wanted = requested_version(take, self.index, None, prompt, mode)
        if prompt is not None and wanted.seed != shot.versions[shot.chosen].seed:
            raise ValueError(f"the prompt sets seed {wanted.seed}, but every version has its own; leave @seed out")
        begun = islice(_incomplete(take, self.index, wanted), count)
        self._versions = {version: shot.versions[version] for version in begun}
        new = count - len(self._versions)
        for version, seed in zip(range(len(shot.versions), len(shot.versions) + new), fresh_seeds(shot), strict=False):
            self._versions[version] = replace(wanted, seed=seed)

    @property
    def take(self) -> Take:
        """The take with the versions so far, as it is on disk."""
        return self._take

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the versions, from 0, in the order in which they are made."""
        return tuple(self._versions)

    @property
    def first(self) -> BlockSpec:
        """The first block of the shot."""
        return self._take.plan.blocks_of_shots[self.index][0]

    def films(
        self,
        start_generation: StartGeneration,
        *,
        start: Tensor | None = None,
        on_note: Callable[[str], None] | None = None,
        snapshots: bool = False,
        prepare: Callable[[Film], None] = lambda _: None,
    ) -> Iterator[tuple[int, Film]]:
        """Yields each version's number and its film up to the end of the shot; ends after a film that is incomplete.

        start: see `Film`. on_note, snapshots: see `TakeStore`. prepare: called with every film before the first one is
        yielded, such as to add it to a `FilmBatch`.
        """
        shared = SharedSnapshot(self.first) if len(self._versions) > 1 else None
        films = dict[int, Film]()
        for version in self._versions:
            draft = self._draft(version)
            end = draft.plan.blocks_of_shots[self.index][-1].index + 1
            plan = replace(draft.plan, blocks=draft.plan.blocks[:end])
            store = VersionStore(draft, plan, shared, on_note=on_note, snapshots=snapshots, check=self._check)
            store.on_first = lambda version=version: self._record(version)
            films[version] = Film(plan, start_generation, store, start=start)
            prepare(films[version])
        for version, film in films.items():
            yield version, film
            if not film.complete:
                return

    def _draft(self, version: int) -> Take:
        """The take with a version chosen, which is not saved; new versions before it are in it, too."""
        shot = self._take.shots[self.index]
        new = [self._versions[number] for number in range(len(shot.versions), version + 1)]
        return self._take.with_shot(self.index, Shot((*shot.versions, *new), version))

    def _record(self, version: int) -> None:
        """Adds a version to the take on disk, where the chosen one stays chosen."""
        shot = self._take.shots[self.index]
        if version < len(shot.versions):
            return
        shot = replace(shot, versions=(*shot.versions, self._versions[version]))
        self._take = self._take.with_shot(self.index, shot)
        self._take.save()


@dataclass(slots=True)
class SharedSnapshot:
    """The KV cache before a block, kept in host memory once it is known."""

    before: BlockSpec
    snapshot: Snapshot | None = None


class VersionStore(TakeStore):
    """A `TakeStore` of a film that ends with a version of a shot.

    on_first: called after the first block of the version is stored.
    """

    def __init__(
        self,
        take: Take,
        plan: BlockPlan,
        shared: SharedSnapshot | None,
        *,
        on_note: Callable[[str], None] | None = None,
        snapshots: bool = False,
        check: Callable[[], None] | None = None,
    ) -> None:
        """take: with the version chosen. plan: of the film up to its end. The other arguments are of `TakeStore`."""
        super().__init__(take, on_note=on_note, snapshots=snapshots, is_locked=True, check=check)
        self._stored, self._shared = plan.blocks, shared
        self._first = plan.blocks_of_shots[-1][0]
        self.on_first: Callable[[], None] = lambda: None

    def save(self, block: Block, plan: BlockPlan) -> None:
        super().save(block, plan)
        if block.index == self._first.index:
            self.on_first()

    def is_intact(self) -> bool:
        return len(self.finished_blocks()) >= len(self._stored)

    def restore(self, generation: Generation, spec: BlockSpec) -> None:
        if self._shared is None or self._shared.snapshot is None:
            super().restore(generation, spec)
        else:
            generation.restore(self._shared.snapshot)

    def save_snapshot(self, snapshot: Callable[[], Snapshot], spec: BlockSpec, *, replayed: bool) -> None:
        super().save_snapshot(snapshot, spec, replayed=replayed)
        shared = self._shared
        if shared is not None and shared.snapshot is None and spec.index == shared.before.index > 0:
            shared.snapshot = snapshot()


def _incomplete(take: Take, index: int, wanted: Version) -> Iterator[int]:
    """Yields versions of a shot that are incomplete and fit: the chosen one, and those that have begun."""
    shot, history = take.shots[index], history_before(take, index)
    count = sum(spec.shot == index for spec in take.plan.blocks)
    for version in shot.newest_first():
        made = take.block_count(index, version)
        if shot.versions[version].text != wanted.text or made == count:
            continue
        fits = history is not None and version_history(take, index, version, history) == history
        if version == shot.chosen or (made and fits):
            yield version
