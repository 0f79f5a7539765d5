"""What an edited script will change in a take, before anything is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..script import BlockPlan, ShotScript
from ..units import numbered, plural
from .block_file import History
from .carry_over import shared_blocks
from .follow import fits_any, follow, is_another_film, plan_for
from .pace import load_pace
from .settings import Settings, changes_bits
from .storyboard import PREVIEW, shared_storyboard
from .take import Take

BlockState = Literal["kept", "remade", "new"]
ShotState = Literal["kept", "restored", "remade", "new"]


@dataclass(frozen=True, slots=True)
class ShotChange:
    """What happens to one shot (from 0).

    first: index of its first block. blocks: kept is stored and stays; remade takes the place of a stored one; new has
    none in any version. version: the version that the film will use, None for a new one. restored: an earlier version.
    source: the shot of the take (from 0) that has its first block, None if none has. board: that block is one of the
    storyboard.
    """

    shot: int
    first: int
    blocks: tuple[BlockState, ...]
    version: int | None
    restored: bool = False
    source: int | None = None
    board: bool = False

    @property
    def state(self) -> ShotState:
        """The state of the whole shot."""
        if all(block == "kept" for block in self.blocks):
            return "restored" if self.restored else "kept"
        return "remade" if "remade" in self.blocks else "new"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a script will change in a take.

    another_film: the film needs a take of its own, which takes over the kept blocks. pace: seconds a block measured
    last, None if it is unknown.
    """

    shots: tuple[ShotChange, ...]
    another_film: bool = False
    pace: float | None = None

    def count(self, *states: BlockState) -> int:
        """Counts the blocks in these states."""
        return sum(block in states for shot in self.shots for block in shot.blocks)

    @property
    def needs_versions(self) -> bool:
        """Whether the film needs versions that the take does not have."""
        return any(shot.version is None for shot in self.shots)

    @property
    def seconds(self) -> float | None:
        """The time that sampling will take, in seconds, at the pace measured last."""
        return None if self.pace is None else self.pace * self.count("remade", "new")

    def line(self) -> str:
        """Formats the changes, as in "shots 3 to 5, 9 of 45 blocks, about 16 s"."""
        total, sampled = self.count("kept", "remade", "new"), self.count("remade", "new")
        if not sampled:
            return f"nothing is sampled: all {plural(total, 'block')} are kept" if total > 1 else "nothing is sampled"
        numbers = [shot.shot + 1 for shot in self.shots if shot.state in ("remade", "new")]
        time = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        return f"{numbered('shot', numbers)}, {sampled} of {plural(total, 'block')}{time}"


def preview_changes(take: Take, script: ShotScript, settings: Settings | None = None) -> Changes:
    """Returns what the film of a script and settings will change in a take; nothing is written.

    settings: those that differ from the take's, by name. Raises as `follow` for a locked shot and a given video.
    """
    film = {**take.settings, **(settings or {})}
    plan = plan_for(take, script, float(film["fps"] or 0))
    pace = None if _changes_pace(take.settings, film) else load_pace(take.folder)
    other = changes_bits(take.settings, film) or film["fps"] != take.settings["fps"]
    if other or is_another_film(take, script, plan):
        return Changes(_new_film(take, plan, film), True, pace)
    return Changes(_same_film(take, follow(take, script), plan), False, pace)


def _new_film(take: Take, plan: BlockPlan, settings: Settings) -> tuple[ShotChange, ...]:
    board = shared_storyboard(take, plan, settings)
    kept = {spec.index: spec for spec, _ in shared_blocks(take, plan, settings)} | board
    made = {spec.index for spec in take.plan.blocks if take.path(spec).is_file()}
    return tuple(
        ShotChange(
            shot,
            specs[0].index,
            tuple(_state(spec.index in kept, spec.index in made) for spec in specs),
            0,
            source=kept[specs[0].index].shot if specs[0].index in kept else None,
            board=specs[0].index in board,
        )
        for shot, specs in enumerate(plan.blocks_of_shots)
    )


def _same_film(take: Take, followed: Take, plan: BlockPlan) -> tuple[ShotChange, ...]:
    """The changes from a take to the one that follows the script."""
    changes, moved = list[ShotChange](), False
    history: History | None = History()
    for shot, specs in enumerate(plan.blocks_of_shots):
        was, now = take.shots[shot], followed.shots[shot]
        moved = moved or was != now
        states = list[BlockState]()
        for spec in specs:
            record = None if now.chosen >= len(was.versions) else take.record(spec, now.chosen)
            kept = record is not None and (record.history == history or fits_any(now, spec, specs))
            # A missing block of an unchanged film is made again bit for bit, so that those after it fit.
            kept = kept or (record is not None and history is None and not moved)
            states.append(_state(kept, any(take.path(spec, version).is_file() for version in range(len(was.versions)))))
            before = record.history if record is not None and history is None else history
            history = before.then(record.digest) if kept and record is not None and before is not None else None
        version = now.chosen if now.chosen < len(was.versions) else None
        restored, begun = version not in (None, was.chosen), states[0] == "kept"
        board = begun and now.versions[now.chosen].made == PREVIEW
        source = shot if begun else None
        changes.append(ShotChange(shot, specs[0].index, tuple(states), version, restored, source, board))
    return tuple(changes)


def _state(kept: bool, made: bool) -> BlockState:
    return "kept" if kept else "remade" if made else "new"


def _changes_pace(one: Settings, other: Settings) -> bool:
    """Whether films of these settings take another time a block."""
    same = ("seed", "fps", "text", "start", "negative")
    return any(one.get(name) != other.get(name) for name in {*one, *other} if name not in same)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{max(1, round(seconds))} s" if seconds < 100 else f"{minutes} min"
