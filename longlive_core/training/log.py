"""The log of a training run: one JSON object a line for each step, its progress, and its plot."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..video.canvas import PALETTE, Axes, Canvas
from .checkpoint import disk_errors

LOG_FILE, PLOT_FILE = "log.jsonl", "loss.png"
PACE_STEPS = 20  # number of newest steps whose mean time is the pace
PLOT_POINTS = 300

Line = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a run after a step.

    step: number of finished steps of `steps`. loss: of each trained part by name, as in {"generator": 0.5}; a part that
    was not due has its last one. pace: seconds per step, the mean over the newest ones.
    """

    step: int
    steps: int
    loss: Mapping[str, float]
    pace: float

    @property
    def seconds_left(self) -> float:
        """Estimated time until the end of the run."""
        return self.pace * (self.steps - self.step)


class TrainingLog:
    """The file `log.jsonl` of a run's folder.

    A line has `step` (finished steps), `steps` (of the run), `seconds` (of this step), and for each trained part NAME
    `NAME.loss`, `NAME.norm` (of the gradient before clipping), `NAME.lr` and the stage's own figures; on some steps
    also `validation.…`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_FILE

    def append(self, line: Line) -> None:
        """Appends a line; NaN and infinity become null. Raises DiskFullError."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        text = json.dumps(finite) + "\n"
        with disk_errors(self.path, len(text)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)

    def cut(self, step: int) -> None:
        """Removes the lines after a step, and what a process that was killed has half written. Raises DiskFullError."""
        if not self.path.exists():
            return
        text = "".join(json.dumps(line) + "\n" for line in self.lines() if line["step"] <= step)
        partial = self.path.with_suffix(".partial")
        with disk_errors(self.path, len(text)):
            partial.write_text(text, "utf-8")
            os.replace(partial, self.path)

    def lines(self) -> list[dict[str, Any]]:
        """Returns all complete lines; empty if there is no file."""
        return list(self._lines()) if self.path.exists() else []

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    continue
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    yield line


def progress_of(lines: Sequence[Line]) -> TrainingProgress:
    """Returns the progress of a run from the lines of its log, at least one."""
    newest = lines[-PACE_STEPS:]
    loss: dict[str, float] = {}
    for line in newest:
        loss |= {k.removesuffix(".loss"): v for k, v in line.items() if k.endswith(".loss") and v is not None}
    pace = sum(line["seconds"] for line in newest) / len(newest)
    return TrainingProgress(newest[-1]["step"], newest[-1]["steps"], loss, pace)


def save_plot(lines: Sequence[Line], path: Path) -> None:
    """Writes the curves of a run's losses as a PNG: one panel for each loss, validation included.

    Raises DiskFullError.
    """
    image = plot_losses(lines)
    partial = path.with_suffix(".partial")
    with disk_errors(path, image.width * image.height):
        image.save(partial, "PNG")
        os.replace(partial, path)


def plot_losses(lines: Sequence[Line]) -> Image.Image:
    """Returns the curves of the losses; a point is the mean of neighbouring steps if there are many."""
    names = sorted({key for line in lines for key in line if key.endswith(".loss") or key.startswith("validation.")})
    last = max((line["step"] for line in lines), default=1)
    canvas = Canvas(900, 60 + 220 * max(1, len(names)))
    canvas.text((20, 14), f"Training losses over {last} steps", 17)
    for place, name in enumerate(names):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        if not points:
            continue
        points = _thinned(points, PLOT_POINTS)
        low, high = min(y for _, y in points), max(y for _, y in points)
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        top = 90 + 220 * place
        axes = Axes(78, top, 885, top + 140, (0, max(last, 1)), (low - margin, high + margin))
        canvas.grid(axes, [low + (high - low) * i / 4 for i in range(5 if high > low else 1)], ".3g", name)
        pixels = [axes.to_pixels(*point) for point in points]
        colour = PALETTE[place % len(PALETTE)]
        canvas.line(pixels, colour, 2)
        if len(pixels) <= PLOT_POINTS // 4:
            for pixel in pixels:
                canvas.dot(pixel, colour, 2)
        ticks = sorted({round(last * i / 5) for i in range(6)})
        for tick in ticks:
            canvas.text((axes.to_pixels(tick, 0)[0], axes.bottom + 6), f"{tick:g}", 12, "ma")
        canvas.line([(axes.left, axes.bottom), (axes.right, axes.bottom)])
    return canvas.image()


def _thinned(points: Sequence[tuple[int, float]], count: int) -> list[tuple[float, float]]:
    """Means of at most `count` runs of neighbouring points."""
    size = math.ceil(len(points) / count)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]
