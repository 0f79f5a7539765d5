"""A script that changes while its film is made: shots that have not begun can be written anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from threading import Lock

from ..script import BlockPlan, Length, ShotScript


class TooLateError(ValueError):
    """A change that cannot be made any more: of a shot that has begun, or of a script that has changed since."""


class LiveScript:
    """The newest script of a film in the making. One thread makes the film, others may bring new scripts.

        live = LiveScript(script, plan)
        live.change(text, version=0)        # from anywhere: checked now, or refused
        plan = live.begin(shot)             # by who makes the film, before a shot's first block

    A change is taken up when the next shot begins. Lengths stay: a film in the making has its place in a file, with
    its sound. `version` counts the changes.
    """

    def __init__(self, script: ShotScript, plan: BlockPlan) -> None:
        """plan: of the script; of a film that goes on from another one, with the blocks before it."""
        self._lock = Lock()
        self._script, self._plan = script, plan
        self._before = plan.shots - len(script.shots)
        self._version, self._begun = 0, 0

    @property
    def script(self) -> ShotScript:
        return self._script

    @property
    def version(self) -> int:
        return self._version

    @property
    def begun(self) -> int:
        """How many shots of the script have begun: they stay as they are."""
        return max(0, self._begun - self._before)

    def begin(self, shot: int) -> BlockPlan:
        """The plan that holds from here on; the film begins this shot (from 0, of the whole film) and makes it so."""
        with self._lock:
            self._begun = max(self._begun, shot + 1)
            return self._plan

    def change(self, text: str, version: int | None = None) -> int:
        """Takes a whole script for the one that is, and returns its version.

        version: the one that was changed. Raises ScriptError for a text that is no script, TooLateError where it
        touches a shot that has begun or another version than the newest, ValueError for other lengths.
        """
        script = ShotScript.parse(text)
        with self._lock:
            if version is not None and version != self._version:
                raise TooLateError(f"the script is at version {self._version}, not {version}: read it again")
            self._check_begun(script)
            self._plan = self._planned(script)
            self._script, self._version = script, self._version + 1
            return self._version

    def _check_begun(self, script: ShotScript) -> None:
        count = len(self._script.shots)
        if len(script.shots) != count:
            raise ValueError(
                f"the film in the making has {count} shots, this script {len(script.shots)}: change their texts and "
                "seeds; shots are added to a film that is complete"
            )
        for number, (was, now) in enumerate(zip(self._script.shots, script.shots, strict=True), 1):
            same = (was.prompt, was.seed, was.continues) == (now.prompt, now.seed, now.continues)
            if number <= self.begun and not same:
                raise TooLateError(
                    f"shot {number} has begun: change shots from {self.begun + 1} on, or retake it later"
                )

    def _planned(self, script: ShotScript) -> BlockPlan:
        """The film's plan with this script. Raises ValueError where a shot has another length; none is the same."""
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
        was, now = (Counter(block.shot for block in one.blocks) for one in (self._plan, plan))
        for shot in was:
            if was[shot] != now[shot]:
                raise ValueError(
                    f"shot {shot - self._before + 1} has another length in this script: lengths stay while a film is "
                    f"made; write it as ({was[shot]} blocks)"
                )
        return plan
