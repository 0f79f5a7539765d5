"""A storyboard ordered in one value: the film's take with the first block of every shot, and those as a film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..film.storyboard import board_noise, storyboard
from ..film.take_storyboard import BoardRun, put_on_board
from ..sampling.noise import NoiseSource
from ..script import BlockPlan, ShotScript
from ..take import Take, TakeRun
from ..take.block_file import Settings
from ..take.take import SUFFIX, made_in
from .job import Job
from .settings import BLOCK_FRAMES, FPS, RenderSettings


class StoryboardJob(Job):
    """An order whose storyboard is made: FILM.take with the first block of every shot, and FILM.preview.mp4 and .png.

    The order resumed by `Job` makes the film whose shots begin with these blocks, to the bit. Blocks that are there are
    not made again.
    """

    def __init__(self, order: RenderSettings, **more: Any) -> None:  # noqa: ANN401
        """more: as of `Job`. Raises what `Job` raises, and ValueError for an order that keeps no take."""
        if not order.take:
            raise ValueError("a preview is kept in a take, so that the film can begin with it; leave --no-take out")
        super().__init__(order, **more)

    @property
    def written(self) -> RenderSettings:
        output = self.order.output.with_suffix(".preview.mp4")
        return replace(self.order, output=output, codec="h264", contact_sheet=True)

    def _cutting(self) -> None:
        """A storyboard is written whole: what the take keeps of files is of the film."""

    def _plan(self, script: ShotScript) -> BlockPlan:
        self._whole = script.plan(FPS, BLOCK_FRAMES)
        return storyboard(self._whole)

    def _noise(self) -> NoiseSource:
        return board_noise(self._whole, super()._noise())

    def _prepare(self, take: Take | None, script: ShotScript, settings: Settings) -> Take:
        folder = self.order.output.with_suffix(SUFFIX)
        if take is None and made_in(folder)[0]:
            raise FileExistsError(
                f"{folder} holds a film that a storyboard would take the place of; name another film with -o, or add "
                f"the missing blocks with `longlive render --resume {folder} --preview`"
            )
        take = put_on_board(super()._prepare(take, script, settings))
        take.save()
        return take

    def _take_run(self, take: Take, on_note: Callable[[str], None] | None) -> TakeRun:
        return BoardRun(take, self._begin, on_note)
