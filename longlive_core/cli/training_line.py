"""The line that shows the progress of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .progress_bar import format_duration

if TYPE_CHECKING:
    from ..training.log import TrainingProgress


class TrainingLine:
    """Prints the progress of a run: one line at the first and the last step, and every `seconds` seconds between."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._since = seconds

    def show(self, progress: TrainingProgress) -> None:
        """Prints a line if it is time."""
        self._since += progress.pace
        if self._since >= self.seconds or progress.step == progress.steps:
            self._since = 0.0
            print(format_training(progress), flush=True)


def format_training(progress: TrainingProgress) -> str:
    """Formats progress, as in `step 120/600  model loss 0.1234  1.52 s/step  12:10 left`."""
    losses = "".join(f"  {name} loss {value:.4g}" for name, value in progress.loss.items())
    return (
        f"step {progress.step}/{progress.steps}{losses}  {progress.pace:.3g} s/step  "
        f"{format_duration(progress.seconds_left)} left"
    )
