"""A script that can be changed while its film is sampled: shots that have not begun can be rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from threading import Lock

from ..script import BlockPlan, Length, ShotScript
from ..units import plural


class TooLateError(ValueError):
    """A change is refused because its shot has begun or because the script has changed in the meantime."""


class LiveScript:
    """The newest script of a film that is being sampled. One thread samples it; others may change the script.

        live = LiveScript(script, plan)
        live.change(text, version=0)        # from any thread; checked at once
        plan = live.begin(shot)             # from the thread that samples, before a shot's first block

    A change takes effect when the next shot begins. Lengths cannot change, because the film's file already has its
    audio. script: the newest script. text: how it was written, None before the first change. version: the number of
    changes so far.
    """

    def __init__(
        self,
        script: ShotScript,
        plan: BlockPlan,
        check: Callable[[BlockPlan], None] = lambda _: None,
        parse: Callable[[str], ShotScript] = ShotScript.parse,
    ) -> None:
        """plan: the film's plan; for a film that continues another one it includes the earlier film's blocks.

        check: raises ValueError for a plan that the film's memory cannot hold. parse: reads a changed script.
        """
        self._lock, self._parse = Lock(), parse
        self.script, self._plan, self._check = script, plan, check
        self._before = plan.shots - len(script.shots)
        self.text: str | None = None
        self.version, self._begun = 0, 0

    @property
    def begun(self) -> int:
        """The number of the script's shots that have begun and can no longer change."""
        return max(0, self._begun - self._before)

    def begin(self, shot: int) -> BlockPlan:
        """Marks a shot (from 0, of the whole film) as begun and returns the plan for it and the shots after it."""
        with self._lock:
            self._begun = max(self._begun, shot + 1)
            return self._plan

    def change(self, text: str, version: int | None = None) -> int:
        """Replaces the script and returns the new version.

        version: the version that was edited. Raises ScriptError if the text is not a script, TooLateError if it changes
        a shot that has begun or if `version` is not the newest, ValueError if it changes a length or the cast files, or
        recalls more than fits.
        """
        script = self._parse(text)
        if script.cast != self.script.cast:
            raise ValueError("the cast files of a film cannot change while it is made; put the cast: lines back")
        with self._lock:
            if version is not None and version != self.version:
                raise TooLateError(f"the script is at version {self.version}, not {version}: read it again")
            self._check_begun(script)
            plan = self._planned(script)
            self._check_recalled(plan)
            self._check(plan)
            self._plan = plan
            self.script, self.text, self.version = script, text, self.version + 1
            return self.version

    def _check_begun(self, script: ShotScript) -> None:
        count = len(self.script.shots)
        if len(script.shots) != count:
            raise ValueError(
                f"the film that is being made has {plural(count, 'shot')}, this script {len(script.shots)}: change "
                "texts and seeds only, and add shots when the film is complete"
            )
        for number, (was, now) in enumerate(zip(self.script.shots, script.shots, strict=True), 1):
            same = (was.prompt, was.seed, was.continues) == (now.prompt, now.seed, now.continues)
            if number <= self.begun and not same:
                raise TooLateError(
                    f"shot {number} has begun: change shots from {self.begun + 1} on, or retake shot {number} later"
                )

    def _check_recalled(self, plan: BlockPlan) -> None:
        """Raises TooLateError if a shot that has begun would recall other blocks."""
        for was, now in zip(self._plan.blocks, plan.blocks, strict=True):
            if now.shot < self._begun and was.recalled != now.recalled:
                number = now.shot - self._before + 1
                raise TooLateError(f"shot {number} has begun, and what it recalls cannot change: retake it later")

    def _planned(self, script: ShotScript) -> BlockPlan:
        """Plans the film by this script; shots without a length keep theirs. Raises ValueError if a length changes."""
        blocks = Counter(block.shot - self._before for block in self._plan.blocks)
        shots = tuple(
            replace(shot, duration=Length(Decimal(blocks[index]), "blocks"))
            if shot.duration is None and shot.start is None
            else shot
            for index, shot in enumerate(script.shots)
        )
        plan = replace(script, shots=shots).plan(self._plan.fps, self._plan.block_frames)
        first = next(block.index for block in self._plan.blocks if block.shot == self._before)
        if first:
            cut = self._plan.blocks[first].cut
            earlier = self._plan.blocks[:first]
            plan = BlockPlan(earlier, plan.fps, plan.block_frames).then(plan, cut)
        was, now = (Counter(block.shot for block in blocks) for blocks in (self._plan.blocks, plan.blocks))
        for shot in was:
            if was[shot] != now[shot]:
                raise ValueError(
                    f"shot {shot - self._before + 1} has another length in this script, and lengths cannot change "
                    f"while a film is made; write it as ({plural(was[shot], 'block')})"
                )
        return plan
