"""The training loop of all stages: accumulation, clipping, optimisers, averages of weights, checkpoints and log."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoints, Place, check_space, disk_errors
from .log import PACE_STEPS, PLOT_FILE, TrainingLog, TrainingProgress, save_plot
from .optim import Optimiser, WeightAverage, lr_scale, trainable
from .stage import Loss, Origin, Stage, Trained
from .toml_settings import Setting, check_ranges
from .workers import ALONE, Workers

CHECKPOINTS = "checkpoints"
PLOT_SECONDS = 30.0  # between two plots at least: one takes a third of a second
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of the loop.

    steps: number of steps of the whole run. seed: with the step it decides all random numbers. accumulation: parts of a
    batch whose gradients are averaged before an update. precision: of the forward pass; weights and optimiser are
    always float32. save_every: steps between checkpoints. keep: number of newest checkpoints to keep. validate_every:
    steps between validation losses; 0 is never. Raises ValueError for a value out of range.
    """

    steps: Annotated[int, Setting(at_least=1, example=600)]
    seed: Annotated[int, Setting(at_least=0)] = 0
    accumulation: Annotated[int, Setting(at_least=1)] = 1
    precision: Precision = "float32"
    save_every: Annotated[int, Setting(at_least=1)] = 100
    keep: Annotated[int, Setting(at_least=1)] = 2
    validate_every: Annotated[int, Setting(at_least=0)] = 0

    def __post_init__(self) -> None:
        check_ranges(self)


class NotFiniteLossError(ValueError):
    """A loss or its gradient is NaN or infinite. The weights and the checkpoints before it are kept."""


class Trainer:
    """One training run in a folder: `log.jsonl`, `loss.png` and `checkpoints/`. A run in the same folder is resumed.

        trainer = Trainer(stage, TrainerSettings(steps=600), folder)
        complete = trainer.run()

    A resumed run has the losses and weights of an uninterrupted one, to the bit, on the same machine and number of
    threads. step: number of finished steps. averages: the average of the weights of each trained part that has one.
    notes: what was found when the run was resumed.
    """

    def __init__(
        self,
        stage: Stage,
        settings: TrainerSettings,
        folder: Path,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """Makes the optimisers and loads the newest checkpoint of the folder.

        Raises ValueError for a checkpoint of another stage, seed, origin or model, BadCheckpointError if no checkpoint
        can be read, and DiskFullError if the disk has too little space for the checkpoints.
        """
        self.stage, self.settings, self.folder = stage, settings, folder
        self.on_progress, self.should_stop = on_progress, should_stop
        self.workers = workers
        if settings.accumulation % workers.count:
            raise ValueError(
                f"{workers.count} processes cannot share {settings.accumulation} parts of a batch evenly; "
                "use a number of processes that divides it"
            )
        self.step = 0
        self.averages: dict[str, WeightAverage] = {}
        self._trained = {trained.name: trained for trained in stage.trained}
        self._optimisers = {t.name: Optimiser(t.module, t.optimiser) for t in stage.trained}
        self._position = _Position()
        self._saved: Place | None = None
        self._plotted = time.monotonic()
        self._checkpoints = Checkpoints(folder / CHECKPOINTS, settings.keep)
        self._log = TrainingLog(folder)
        self._resume()
        self._check_space()

    @property
    def notes(self) -> list[str]:
        """What was found when the run was resumed, such as a damaged checkpoint that was passed over."""
        return self._checkpoints.notes

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
                self._plot()
                return False
            line = self.workers.sum_figures(self._position.line)
            self.step, self._position = self.step + 1, _Position()
            if not self.workers.first:
                continue
            if self.settings.validate_every and self.step % self.settings.validate_every == 0:
                with torch.no_grad(), self._averaged(), self._autocast():
                    line |= {f"validation.{k}": v for k, v in self.stage.validation_loss(self.step - 1).items()}
            start, end = end, time.monotonic()  # with the checkpoint of the step before
            pace.append(end - start)
            self._log.append({"step": self.step, "steps": self.settings.steps, "seconds": round(pace[-1], 4), **line})
            losses |= {name: line[f"{name}.loss"] for name in self._trained if f"{name}.loss" in line}
            if self.step % self.settings.save_every == 0 or self.step == self.settings.steps:
                self._save()
                if time.monotonic() - self._plotted > PLOT_SECONDS:
                    self._plot()
            if self.on_progress is not None:
                self.on_progress(TrainingProgress(self.step, self.settings.steps, dict(losses), sum(pace) / len(pace)))
        self._plot()
        return True

    def _finish_step(self) -> bool:
        """Runs the parts and updates of a step from `_position` on; returns False if it was stopped before its end."""
        due = [t for t in self.stage.trained if self.step % t.optimiser.every == 0]
        while self._position.trained < len(due):
            trained = due[self._position.trained]
            while self._position.part < self.settings.accumulation:
                if self._stopped():
                    return False
                self._backward(trained)
            self._update(trained)
            self._position.trained, self._position.part = self._position.trained + 1, 0
        return True

    def _stopped(self) -> bool:
        """Whether to stop before the next part. Several processes stop together, before they have gradients."""
        stop = self.should_stop is not None and self.should_stop()
        if self.workers.count == 1:
            return stop
        return self._position.part == 0 and self.workers.any(stop)

    @contextmanager
    def _averaged(self) -> Generator[None, None, None]:
        """Replaces the weights of modules by their averages, where there are some, until the context ends."""
        own = {n: [p.detach().clone() for p in trainable(self._trained[n].module).values()] for n in self.averages}
        for name, average in self.averages.items():
            average.copy_to(self._trained[name].module)
        try:
            yield
        finally:
            for name, weights in own.items():
                for p, value in zip(trainable(self._trained[name].module).values(), weights, strict=True):
                    p.data.copy_(value)

    def _backward(self, trained: Trained) -> None:
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
            raise self._not_finite(trained, f"loss is {value}", loss)
        (share * loss.value).backward()
        line = self._position.line
        for key, figure in {"loss": value, **loss.figures}.items():
            line[f"{trained.name}.{key}"] = line.get(f"{trained.name}.{key}", 0.0) + share * float(figure)
        self._position.batches.append(loss.batch)
        self._position.part += 1

    def _update(self, trained: Trained) -> None:
        """Clips the gradient and updates weights and their average."""
        name, settings, module = trained.name, trained.optimiser, trained.module
        parameters = trainable(module).values()
        self.workers.sum_gradients(parameters)
        clip = math.inf if settings.clip is None else settings.clip
        norm = float(nn.utils.clip_grad_norm_(parameters, clip))
        if not math.isfinite(norm):
            batch = ", ".join(filter(None, self._position.batches))
            raise self._not_finite(trained, f"gradient norm is {norm}", Loss(torch.tensor(norm), batch=batch))
        if settings.ema_decay and name not in self.averages and self.step >= settings.ema_start:
            self.averages[name] = WeightAverage(module, settings.ema_decay)
        scale = lr_scale(settings, self.step, self.settings.steps)
        self._optimisers[name].step(scale)
        if name in self.averages:
            self.averages[name].update(module)
        if self.workers.first:
            self._position.line |= {f"{name}.norm": norm, f"{name}.lr": settings.lr * scale}
        self._position.batches.clear()

    def _not_finite(self, trained: Trained, what: str, loss: Loss) -> NotFiniteLossError:
        batch = f" on {loss.batch}" if loss.batch else ""
        places = self._checkpoints.places()
        kept = f"the checkpoint of step {places[-1][0]} is kept" if places else "there is no checkpoint yet"
        lr, muon_lr = trained.optimiser.lr, trained.optimiser.muon_lr
        rates = f"{lr:g}" if muon_lr is None else f"{lr:g}, Muon {muon_lr:g}"
        return NotFiniteLossError(
            f"step {self.step}: the {what} in '{trained.name}'{batch}; {kept}. "
            f"Check this data, or lower the learning rate ({rates})"
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return nullcontext()
        device = next(iter(trainable(self.stage.trained[0].module).values())).device
        return torch.autocast(device.type, torch.bfloat16)

    def _save(self) -> None:
        place = self._place
        if place == self._saved or not self.workers.first:
            return
        state = {
            "stage": self.stage.name,
            "seed": self.settings.seed,
            "step": self.step,
            "accumulation": self.settings.accumulation,
            "origins": {role: asdict(origin) for role, origin in self.stage.origins.items()},
            "trained": {name: self._trained_state(trained) for name, trained in self._trained.items()},
            "stage_state": self.stage.state_dict(),
            "position": asdict(self._position),
        }
        self._checkpoints.save(place, state)
        self._saved = place

    def _trained_state(self, trained: Trained) -> dict[str, Any]:
        weights = trainable(trained.module)
        average = self.averages.get(trained.name)
        # Within a step, gradients of parts that are done are part of the state.
        gradients = {k: p.grad for k, p in weights.items() if p.grad is not None} if self._position.part else {}
        return {
            "weights": {name: p.detach() for name, p in weights.items()},
            "optimiser": self._optimisers[trained.name].state_dict(),
            "average": None if average is None else average.state_dict(),
            "gradients": gradients,
        }

    def _resume(self) -> None:
        state = self._checkpoints.load()
        if state is None:
            return
        self._check_same("stage", state["stage"], self.stage.name)
        self._check_same("seed", state["seed"], self.settings.seed)
        self._check_same("trained parts", sorted(state["trained"]), sorted(self._trained))
        self._check_origins(state.get("origins", {}))
        position = _Position(**state["position"])
        if position != _Position():
            # The run was stopped within a step, whose gradients so far are shares of this number.
            self._check_same("accumulation", state["accumulation"], self.settings.accumulation)
            if position.part and self.workers.count > 1:
                raise ValueError(f"one process stopped this run within step {state['step']}: resume it with one")
        for name, saved in state["trained"].items():
            self._load_trained(self._trained[name], saved)
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

    @torch.no_grad()
    def _load_trained(self, trained: Trained, saved: dict[str, Any]) -> None:
        weights = trainable(trained.module)
        fault = _difference(saved["weights"], weights)
        if fault:
            where = self._checkpoints.folder
            raise ValueError(f"the checkpoints in {where} are of another model: '{trained.name}' {fault}")
        for name, p in weights.items():
            p.copy_(saved["weights"][name])
            gradient = saved["gradients"].get(name)
            p.grad = None if gradient is None else gradient.to(p.device)
        self._optimisers[trained.name].load_state_dict(saved["optimiser"])
        if saved["average"] is not None and trained.optimiser.ema_decay:
            self.averages[trained.name] = WeightAverage(trained.module, trained.optimiser.ema_decay)
            self.averages[trained.name].load_state_dict(saved["average"])

    def _check_space(self) -> None:
        """Raises DiskFullError if the disk cannot hold the checkpoints that are still to be added."""
        count = max(1, self.settings.keep + 1 - len(self._checkpoints.places()))
        size = 0
        for trained in self.stage.trained:
            copies = 3 + bool(trained.optimiser.ema_decay)  # weights, two moments, average
            size += copies * sum(4 * p.numel() for p in trainable(trained.module).values())
        with disk_errors(self._checkpoints.folder, count * size):
            check_space(self._checkpoints.folder, count * size)


@dataclass
class _Position:
    """The place within a step: the index of the trained part among those due, the next gradient-accumulation part, the
    line of the log so far, and the batches since the last update.

    It is part of a checkpoint, because a stage may have changed its state in the parts that are done.
    """

    trained: int = 0
    part: int = 0
    line: dict[str, float] = field(default_factory=dict[str, float])
    batches: list[str] = field(default_factory=list[str])


def _difference(saved: dict[str, Tensor], weights: dict[str, nn.Parameter]) -> str:
    """Says how two sets of weights differ in names and shapes; empty if they do not."""
    if other := sorted(saved.keys() ^ weights.keys()):
        return f"has other weights ({', '.join(other[:3])}{', …' * (len(other) > 3)})"
    for name, p in weights.items():
        if saved[name].shape != p.shape:
            return f"has '{name}' of shape {tuple(saved[name].shape)}, not {tuple(p.shape)}"
    return ""
