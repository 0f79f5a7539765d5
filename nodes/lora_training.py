"""A training run of a LoRA inside the host: it trains a copy of a MODEL, and ends or is interrupted as a film is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy.model_management import processing_interrupted, throw_exception_if_processing_interrupted
from torch import Tensor

from ..longlive_core.model import CausalWan
from ..longlive_core.script import BlockPlan
from ..longlive_core.take.lock import TakeLock
from ..longlive_core.training.clip_cache import EncodedClip, encode_videos
from ..longlive_core.training.clip_scan import Scan, scan_videos
from ..longlive_core.training.log import TrainingProgress
from ..longlive_core.training.lora import CORE_PREFIX, AdaptedModel, save_lora
from ..longlive_core.training.lora_memory import check_memory, run_budget
from ..longlive_core.training.lora_run import data_digest, lora_stage
from ..longlive_core.training.lora_stage import ADAPTER, LoraStage
from ..longlive_core.training.run_folder import find_run
from ..longlive_core.training.settings import LoraRun
from ..longlive_core.training.stage import Origin
from ..longlive_core.training.trainer import Trainer
from ..longlive_core.units import plural
from ..longlive_core.vae.encode_clip import plan_clip
from ..longlive_core.video.clip import ClipStopped
from ..longlive_core.vram.device_memory import device_memory
from .fingerprint import vae_fingerprint, weights_fingerprint
from .lora_base import LoraBase
from .sample_films import SampleFilms
from .shot_script import unknown_word_notes
from .training_data import read_data
from .training_view import TrainingView

SAMPLE_BLOCKS = 2


@dataclass(frozen=True)
class TrainedLora:
    """What a run has made. lora: the file in models/loras. folder: of the run. sample: the newest film, if any."""

    lora: Path
    folder: Path
    sample: Path | None


@dataclass(frozen=True)
class LoraTraining:
    """A run of LongLive Train LoRA, shown in `view`.

    data: name of the data set. prior: name of that of the prior; empty for none. name: of the LoRA, without its number.
    sample_every: steps between two sample films, 0 is never. sample_plan: of these films; None takes the prompt of the
    first clip.
    """

    base: LoraBase
    run: LoraRun
    data: str
    prior: str
    name: str
    sample_every: int
    sample_plan: BlockPlan | None
    view: TrainingView

    def train(self) -> TrainedLora:
        """Trains to the last step. Call it outside inference mode.

        Raises ValueError and OSError for what cannot be trained, before work starts, and the host's interrupt, which
        keeps the encoded clips, a checkpoint of the last step and its LoRA.
        """
        sets, device = [read_data(name) for name in (self.data, self.prior) if name], self.base.model.load_device
        with _interrupts():
            self.view.status("reading the videos")
            scans = [scan_videos(files, self._area, self.run.blocks, processing_interrupted) for files in sets]
        self.view.notes += chain.from_iterable(scan.notes for scan in scans)
        model = self.base.copy()
        self._free_card(device)
        run = fitted(self.run, scans, model, device)
        check_memory(run, scans, model, device)
        plan = self.sample_plan or plan_clip(SAMPLE_BLOCKS, scans[0].videos[0].clips[0][0].prompt)
        text = self._encode_text(scans, plan)
        clips, *more = (self._encode_clips(scan, model) for scan in scans)
        prior = more[0] if more else ()
        folder = self._folder(run, clips, prior)
        self._free_card(device)
        size = scans[0].videos[0].size
        films = SampleFilms(self.base, self.sample_every, plan, text, size, run.trainer.seed, folder)
        base = Origin(self.base.name, weights_fingerprint(self.base.model))
        try:
            with TakeLock(folder) as lock:
                self._run(run, lora_stage(run, clips, prior, model, text.__getitem__, base, device), films, lock)
        finally:
            comfy.model_management.soft_empty_cache()
        return TrainedLora(_lora(folder), folder, films.newest)

    def _run(self, run: LoraRun, stage: LoraStage, films: SampleFilms, lock: TakeLock) -> None:
        """Trains and saves. Raises the host's interrupt."""
        model, steps = AdaptedModel(stage.model, ADAPTER), run.trainer.steps

        def show(progress: TrainingProgress) -> None:
            lock.check()
            self.view.progress(progress, films.folder)
            if progress.step % run.trainer.save_every == 0:
                self._save(stage, progress.step, films.folder)
            if films.due(progress.step, steps):
                self.view.status(f"step {progress.step}/{steps} · making a sample film")
                films.make(model, progress.step, self.view)
                self._free_card(stage.model.device)

        trainer = Trainer(stage, run.trainer, films.folder, show, processing_interrupted, stop_in_parts=True)
        self.view.notes += trainer.notes
        if trainer.step:
            self.view.notes.append(f"{films.folder.name} goes on after step {trainer.step}")
        complete = trainer.run()
        if trainer.step:
            self._save(stage, trainer.step, films.folder)
        if not complete:
            throw_exception_if_processing_interrupted()
        self.view.notes.insert(0, f"{_lora(films.folder).name}: {plural(trainer.step, 'step')}")

    def _save(self, stage: LoraStage, step: int, folder: Path) -> None:
        """Writes the LoRA as it is now, with names that every loader of LoRAs reads."""
        path = _lora(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_lora(path, stage.weights, stage.lora, stage.card(step, self.base.name, self.data), CORE_PREFIX)

    def _encode_text(self, scans: Sequence[Scan], plan: BlockPlan) -> dict[str, Tensor]:
        """Encodes all prompts of the clips and of the sample films."""
        self.view.status("encoding the captions")
        own = {block.prompt for scan in scans for video in scan.videos for clip in video.clips for block in clip}
        prompts = sorted(own | {block.prompt for block in plan.blocks})
        self.view.notes += unknown_word_notes(self.base.clip, " ".join(prompts))
        return self.base.text(prompts)

    def _encode_clips(self, scan: Scan, model: CausalWan) -> tuple[EncodedClip, ...]:
        """Encodes the clips that no earlier run has."""
        vae, folder = self.base.vae, _runs() / "clips"
        self.view.status(f"encoding {plural(scan.clips, 'clip')}")
        comfy.model_management.load_models_gpu([vae.patcher], memory_required=self.base.encoder_bytes(scan))
        with _interrupts():
            return encode_videos(
                scan,
                self.base.chunks,
                vae_fingerprint(vae),
                model.config.channels,
                folder,
                self.view.status,
                processing_interrupted,
            )

    def _folder(self, run: LoraRun, clips: Sequence[EncodedClip], prior: Sequence[EncodedClip]) -> Path:
        """The folder of the run with these settings, which may have begun before."""
        settings = {
            "model": weights_fingerprint(self.base.model),
            "data": data_digest(clips),
            "rank": run.rank,
            "learning_rate": run.optimiser.lr,
            "seed": run.trainer.seed,
            "resolution": run.size,
            "blocks": run.blocks,
        }
        if prior:
            settings["prior"] = data_digest(prior)
        found = find_run(_runs(), self.name, settings, lambda name: _lora(Path(name)).exists())
        if found.changed:
            self.view.notes.append(f"changed: {', '.join(found.changed)}; {found.path.name} begins at step 0")
        return found.path

    @property
    def _area(self) -> int:
        height, width = self.run.size or (0, 0)
        return height * width

    def _free_card(self, device: torch.device) -> None:
        """Unloads the host's models from a card, which the run then has for itself."""
        if device.type != "cpu":
            comfy.model_management.unload_all_models()
            comfy.model_management.soft_empty_cache()


def fitted(run: LoraRun, scans: Sequence[Scan], model: CausalWan, device: torch.device) -> LoraRun:
    """The run with the moments of AdamW in host memory, if the device holds it only so."""
    memory = device_memory(device)
    if memory is None or run_budget(run, scans, model, memory).fits:
        return run
    offloaded = replace(run, optimiser=replace(run.optimiser, offload=True))
    return offloaded if run_budget(offloaded, scans, model, memory).fits else run


@contextmanager
def _interrupts() -> Iterator[None]:
    """Raises the host's interrupt where it has stopped the reading of a video."""
    try:
        yield
    except ClipStopped:
        throw_exception_if_processing_interrupted()
        raise


def _lora(folder: Path) -> Path:
    """The LoRA file of a run."""
    return Path(folder_paths.get_folder_paths("loras")[0]) / f"{folder.name}.safetensors"


def _runs() -> Path:
    """The folder of all runs."""
    return Path(folder_paths.get_output_directory()) / "training"
