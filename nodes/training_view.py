"""Shows a training run on its node: progress, a status line, the curve of the loss and the newest sample film."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import folder_paths
from comfy.model_management import processing_interrupted
from comfy_api.latest import io, ui
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..longlive_core.cli.progress_bar import format_duration
from ..longlive_core.script import BlockPlan
from ..longlive_core.training.log import PLOT_FILE, TrainingLog, TrainingProgress, save_plot
from ..longlive_core.video.media_type import media_type
from .films import FilmInfo, Place
from .preview import send_text
from .routes import films

PLOT_SECONDS = 5.0  # between two curves on the node: drawing one takes a third of a second


class TrainingView:
    """What a node shows of the run that it makes. notes: lines below the status."""

    def __init__(self, node: str, notes: list[str]) -> None:
        self.node, self.notes = node, notes
        self._plotted = perf_counter()

    def status(self, text: str) -> None:
        """Shows a line, and the notes below it."""
        send_text("\n".join([text, *self.notes]), self.node)  # a node shows its newest text only

    def progress(self, progress: TrainingProgress, folder: Path) -> None:
        """Shows a finished step, and from time to time the curve of the run in `folder`."""
        get_progress_state().update_progress(self.node, progress.step, progress.steps, None)
        self.status(format_status(progress))
        if perf_counter() - self._plotted > PLOT_SECONDS and not processing_interrupted():
            save_plot(TrainingLog(folder).lines(), folder / PLOT_FILE)
            send_output({"images": [saved(folder / PLOT_FILE)]}, self.node)
            self._plotted = perf_counter()

    def sample(self, path: Path, plan: BlockPlan, size: tuple[int, int]) -> None:
        """Shows a sample film of (height, width) pixels in the node's player."""
        place, shown = Place.current(), saved(path)
        info = FilmInfo(
            place.key,
            place.prompt,
            place.node,
            place.workflow,
            plan.fps,
            size[1],
            size[0],
            plan.video_frames,
            plan.shots,
            tuple(block.video_start / plan.fps for block in plan.blocks if block.cut),
            name=shown.filename,
            subfolder=shown.subfolder,
            mime=media_type(path, "h264", False),
            bytes=path.stat().st_size,
            frames=plan.video_frames,
            state="done",
            left=0.0,
        )
        films().add(place, info).update()


def send_output(output: Mapping[str, object], node: str) -> None:
    """Shows on a node what it has made so far, in the place of its output.

    Nodes 2.0 shows a preview beside the output and leaves it there: a picture that is both would show twice.
    """
    server, context = PromptServer.instance, get_executing_context()
    if server.client_id is not None and context is not None:
        place = {"node": node, "display_node": node, "prompt_id": context.prompt_id}
        server.send_sync("executed", {**place, "output": output}, server.client_id)


def saved(path: Path) -> ui.SavedResult:
    """A file in the output folder, as the front-end takes it."""
    folder = path.parent.relative_to(folder_paths.get_output_directory()).as_posix()
    return ui.SavedResult(path.name, folder, io.FolderType.output)


def format_status(progress: TrainingProgress) -> str:
    """Formats the status, as in `step 120/500 · loss 0.1234 · 1.52 s a step · 9:38 left`."""
    loss = "".join(f" · loss {value:.4g}" for value in progress.loss.values())
    left = format_duration(progress.seconds_left)
    return f"step {progress.step}/{progress.steps}{loss} · {progress.pace:.3g} s a step · {left} left"
