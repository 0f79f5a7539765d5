"""The training loop of all stages: accumulation, clipping, optimisers, averages of weights, checkpoints and log."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checkpoint import Checkpoints, Place, check_space, disk_errors
from .layer_stops import StoppedInPart, stops_at_layers
from .log import PACE_STEPS, PLOT_FILE, TrainingLog, TrainingProgress, save_plot
from .optim import WeightAverage
from .sharding import norm_of, shard
from .stage import Origin, Stage
from .trained_part import TrainedPart
from .trainer_settings import TrainerSettings
from .workers import ALONE, Workers

CHECKPOINTS = "checkpoints"
PLOT_SECONDS = 30.0  # between two plots at least: one takes a third of a second


class NotFiniteLossError(ValueError):
    """A loss or its gradient is NaN or infinite. The weights and the checkpoints before it are kept."""


class Trainer:
    """One training run in a folder: `log.jsonl`, `loss.png` and `checkpoints/`. A run in the same folder is resumed.

        trainer = Trainer(stage, TrainerSettings(steps=600), folder)
        complete = trainer.run()

    A resumed run has the losses and weights of an uninterrupted one, to the bit, on the same machine and number of
    threads. step: number of finished steps.
    """

    def __init__(
        self,
        stage: Stage,
        settings: TrainerSettings,
        folder: Path,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        workers: Workers = ALONE,
        *,
        stop_in_parts: bool = False,
    ) -> None:
        """Makes the optimisers and loads the newest checkpoint of the folder.

        should_stop: asked before each part of a batch. stop_in_parts: it is asked at each layer of what is trained too;
        the part is repeated when the run is resumed. Such a stop is quick, and leaves the plot as it was.

        Raises ValueError for a checkpoint of another stage, seed, origin or model, BadCheckpointError if no checkpoint
        can be read, and DiskFullError if the disk has too little space for the checkpoints.
        """
        self.stage, self.settings, self.folder = stage, settings, folder
        self.on_progress, self.should_stop = on_progress, should_stop
        self.workers = workers
        if settings.accumulation % workers.groups:
            raise ValueError(
                f"{workers.groups} processes cannot share {settings.accumulation} parts of a batch evenly; "
                "use a number of processes that divides it"
            )
        self._sharded = settings.shard and workers.count > 1
        if self._sharded:
            shard(stage, workers)
        if stop_in_parts and (settings.accumulation > 1 or workers.count > 1):
            raise ValueError(
                f"with {settings.accumulation} parts of a batch in {workers.count} processes a run stops between parts "
                "only, because the gradients of those that are done would be lost; use one of each"
            )
        self._stop_in_parts = stop_in_parts
        self.step = 0
        self._parts = {trained.name: TrainedPart(trained) for trained in stage.trained}
        self._position = _Position()
        self._saved: Place | None = None
        self._plotted = time.monotonic()
        writers = workers if self._sharded else ALONE
        self._checkpoints = Checkpoints(folder / CHECKPOINTS, settings.keep, writers)
        self._log = TrainingLog(folder)
        self._resume()
        self._check_space()

    @property
    def notes(self) -> list[str]:
        """What was found when the run was resumed, such as a damaged checkpoint that was passed over."""
        return self._checkpoints.notes

    @property
    def averages(self) -> dict[str, WeightAverage]:
        """The average of the weights of each trained part that has one."""
        return {name: part.average for name, part in self._parts.items() if part.average is not None}

    def run(self) -> bool:
        """Trains up to the last step; returns whether it was reached. A stop saves a checkpoint.

        Raises NotFiniteLossError, which keeps the checkpoints, and DiskFullError.
        """
        if self.workers.first:
            self._log.cut(self.step)
        pace = deque[float](maxlen=PACE_STEPS)
        losses: dict[str, float] = {}
        end = time.monotonic()
        while self.step < self.settings.steps:
            if not self._finish_step():
                self._save()
                if not self._stop_in_parts:
                    self._plot()
                return False
            line = self._position.updates
            self.step, self._position = self.step + 1, _Position()
            line |= self._validation()
            if not self.workers.first:
                if self._sharded and self._save_is_due:
                    self._save()
                continue
            start, end = end, time.monotonic()  # with the checkpoint of the step before
            pace.append(end - start)
            self._log.append({"step": self.step, "steps": self.settings.steps, "seconds": round(pace[-1], 4), **line})
            losses |= {name: line[f"{name}.loss"] for name in self._parts if f"{name}.loss" in line}
            if self._save_is_due:
                self._save()
                if time.monotonic() - self._plotted > PLOT_SECONDS:
                    self._plot()
            if self.on_progress is not None:
                self.on_progress(TrainingProgress(self.step, self.settings.steps, dict(losses), sum(pace) / len(pace)))
        self._plot()
        return True

    def _validation(self) -> dict[str, float]:
        """The validation losses, where they are due; of processes that need each other for them, in all."""
        together = self._sharded or self.workers.sequence.size > 1
        due = self.settings.validate_every and self.step % self.settings.validate_every == 0
        if not due or not (together or self.workers.first):
            return {}
        with torch.no_grad(), ExitStack() as averaged, self._autocast():
            for part in self._parts.values():
                averaged.enter_context(part.averaged())
            return {f"validation.{k}": v for k, v in self.stage.validation_loss(self.step - 1).items()}

    @property
    def _save_is_due(self) -> bool:
        return self.step % self.settings.save_every == 0 or self.step == self.settings.steps

    def _finish_step(self) -> bool:
        """Runs the parts and updates of a step from `_position` on; returns False if it was stopped before its end."""
        due = [part for part in self._parts.values() if self.step % part.settings.every == 0]
        while self._position.trained < len(due):
            trained = due[self._position.trained]
            while self._position.part < self.settings.accumulation:
                if self._stopped():
                    return False
                try:
                    with self._stops(trained):
                        self._backward(trained)
                except StoppedInPart:
                    return False
            self._update(trained)
            self._position.trained, self._position.part = self._position.trained + 1, 0
        return True

    def _stopped(self) -> bool:
        """Whether to stop before the next part. Several processes stop together, before they have gradients."""
        stop = self.should_stop is not None and self.should_stop()
        if self.workers.count == 1:
            return stop
        return self._position.part == 0 and self.workers.any(stop)

    def _stops(self, trained: TrainedPart) -> AbstractContextManager[Any]:
        if self.should_stop is None or not self._stop_in_parts:
            return nullcontext()
        return stops_at_layers(trained.module, self.should_stop)

    def _backward(self, trained: TrainedPart) -> None:
        """Adds the gradient of one part."""
        if self._position.part == 0:
            # Another part's backward pass may have left gradients here.
            trained.module.zero_grad()
        if not self.workers.takes(self._position.part):
            self._position.part += 1
            return
        with self._autocast():
            loss = self.stage.loss(trained.name, self.step, self._position.part)
        share = 1 / self.settings.accumulation
        value = float(loss.value.detach())
        if not math.isfinite(value):
            raise self._not_finite(trained, f"loss is {value}", loss.batch)
        (share * loss.value).backward()
        line = self._position.line
        for key, figure in {loss.kind: value, **loss.figures}.items():
            line[f"{trained.name}.{key}"] = line.get(f"{trained.name}.{key}", 0.0) + share * float(figure)
        self._position.batches.append(loss.batch)
        self._position.part += 1

    def _update(self, trained: TrainedPart) -> None:
        """Clips the gradient and updates weights and their average."""
        parameters = trained.weights.values()
        if not self._sharded:
            self.workers.sum_gradients(parameters)
        norm = norm_of(nn.utils.clip_grad_norm_(parameters, trained.settings.max_norm))
        if not math.isfinite(norm):
            batch = ", ".join(filter(None, self._position.batches))
            raise self._not_finite(trained, f"gradient norm is {norm}", batch)
        lr = trained.update(self.step, self.settings.steps)
        figures = self.workers.sum_figures(self._position.line)
        self._position.updates |= {**figures, f"{trained.name}.norm": norm, f"{trained.name}.lr": lr}
        self._position.line.clear()
        self._position.batches.clear()

    def _not_finite(self, trained: TrainedPart, what: str, batch: str) -> NotFiniteLossError:
        places = self._checkpoints.places()
        kept = f"the checkpoint of step {places[-1][0]} is kept" if places else "there is no checkpoint yet"
        return NotFiniteLossError(
            f"step {self.step}: the {what} in '{trained.name}'{f' on {batch}' if batch else ''}; {kept}. "
            f"Check this data, or lower the learning rate ({trained.rates})"
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return nullcontext()
        device = next(iter(next(iter(self._parts.values())).weights.values())).device
        return torch.autocast(device.type, torch.bfloat16)

    def _save(self) -> None:
        place = self._place
        if place == self._saved or not (self._sharded or self.workers.first):
            return
        state = {
            "stage": self.stage.name,
            "seed": self.settings.seed,
            "step": self.step,
            "accumulation": self.settings.accumulation,
            "origins": {role: asdict(origin) for role, origin in self.stage.origins.items()},
            # Within a step, gradients of parts that are done are part of the state.
            "trained": {n: p.state_dict(gradients=self._position.part > 0) for n, p in self._parts.items()},
            "stage_state": self.stage.state_dict(),
            "position": asdict(self._position),
        }
        self._checkpoints.save(place, state)
        self._saved = place

    def _resume(self) -> None:
        state = self._checkpoints.load()
        if state is None:
            return
        self._check_same("stage", state["stage"], self.stage.name)
        self._check_same("seed", state["seed"], self.settings.seed)
        self._check_same("trained parts", sorted(state["trained"]), sorted(self._parts))
        self._check_origins(state.get("origins", {}))
        position = _Position(**state["position"])
        if position != _Position():
            # The run was stopped within a step, whose gradients so far are shares of this number.
            self._check_same("accumulation", state["accumulation"], self.settings.accumulation)
            if position.part and self.workers.count > 1:
                raise ValueError(f"one process stopped this run within step {state['step']}: resume it with one")
        for name, saved in state["trained"].items():
            self._parts[name].load_state_dict(saved, self._checkpoints.folder)
        self.stage.load_state_dict(state["stage_state"])
        self.step, self._position = state["step"], position
        self._saved = self._place

    def _plot(self) -> None:
        if not self.workers.first:
            return
        self._plotted = time.monotonic()
        save_plot(self._log.lines(), self.folder / PLOT_FILE)

    @property
    def _place(self) -> Place:
        return self.step, self._position.trained * self.settings.accumulation + self._position.part

    def _check_same(self, what: str, saved: object, own: object) -> None:
        if saved != own:
            where = self._checkpoints.folder
            raise ValueError(f"the checkpoints in {where} are of {what} {saved!r}, not {own!r}: choose another folder")

    def _check_origins(self, saved: dict[str, dict[str, str]]) -> None:
        """Raises ValueError for another base or other data. Checkpoints of earlier versions do not know theirs."""
        for role, own in self.stage.origins.items():
            before = Origin(**saved[role]) if role in saved else own
            if before.digest != own.digest:
                self._check_same(role, f"{before.name} ({before.digest})", f"{own.name} ({own.digest})")

    def _check_space(self) -> None:
        """Raises DiskFullError if the disk cannot hold the checkpoints that are still to be added."""
        count = max(1, self.settings.keep + 1 - len(self._checkpoints.places()))
        size = count * sum(part.bytes for part in self._parts.values())
        with disk_errors(self._checkpoints.folder, size):
            check_space(self._checkpoints.folder, size)


@dataclass
class _Position:
    """The place within a step: the index of the trained part among those due, the next gradient-accumulation part, the
    own figures since the last update, the line of the log so far, and the batches since the last update.

    It is part of a checkpoint, because a stage may have changed its state in the parts that are done.
    """

    trained: int = 0
    part: int = 0
    line: dict[str, float] = field(default_factory=dict[str, float])
    updates: dict[str, float] = field(default_factory=dict[str, float])
    batches: list[str] = field(default_factory=list[str])
