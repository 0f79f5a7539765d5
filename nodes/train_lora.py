"""The node that trains a LoRA on videos of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

import comfy.model_patcher
import comfy.sd
import torch
from comfy_api.latest import io

from ..longlive_core.script import ShotScript
from ..longlive_core.training.log import PLOT_FILE
from ..longlive_core.training.lora_run import check_peft
from ..longlive_core.training.settings import LoraRun
from ..longlive_core.training.trainer_settings import TrainerSettings
from ..longlive_core.types import FPS
from .checks import passed
from .lora import with_lora
from .lora_base import LoraBase
from .lora_training import LoraTraining
from .model import as_causal
from .train_lora_inputs import NO_PRIOR, how_it_is_trained, what_is_trained
from .training_data import data_fingerprint, data_path, read_data
from .training_view import TrainingView, saved
from .types import CATEGORY

SAVE_EVERY = 50


class TrainLora(io.ComfyNode):
    """Videos with captions, and a MODEL, to a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveTrainLora",
            display_name="LongLive Train LoRA",
            category=CATEGORY,
            description="Trains a LoRA on your own videos, for films of several shots. Cancel at any time: the last "
            "step is kept, and the same settings queued again go on from it.",
            search_aliases=[
                "longlive",
                "train",
                "lora trainer",
                "fine-tune",
                "finetune",
                "dreambooth",
                "own character",
            ],
            inputs=[*what_is_trained(), *how_it_is_trained()],
            outputs=[
                io.Model.Output(tooltip="The model with the trained LoRA."),
                io.Combo.Output(
                    display_name="lora_name", tooltip="Name of the LoRA, for LongLive DMD LoRA and every LoRA loader."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        data: str | None = None,
        output_name: str | None = None,
        sample_script: str | None = None,
        prior: str | None = None,
    ) -> bool:
        check_peft()
        for name in (data, prior):
            if name is not None and name != NO_PRIOR:
                read_data(name)
        if output_name is not None:
            _check_name(output_name)
        return passed(sample_script is None or not sample_script.strip() or ShotScript.parse(sample_script).plan(FPS))

    @classmethod
    def fingerprint_inputs(cls, data: str | None = None, prior: str | None = None, **_: object) -> str:
        return "".join(data_fingerprint(name) for name in (data, prior) if name is not None and name != NO_PRIOR)

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        clip: comfy.sd.CLIP,
        vae: comfy.sd.VAE,
        data: str,
        output_name: str,
        rank: int,
        steps: int,
        learning_rate: float,
        sample_every: int,
        sample_script: str,
        seed: int,
        resolution: int,
        blocks: int,
        prior: str = NO_PRIOR,
    ) -> io.NodeOutput:
        check_peft()
        _check_name(output_name)
        base = LoraBase(as_causal(model), clip, vae)
        side = base.side(resolution)
        run = LoraRun(
            data=data_path(data),
            prior=None if prior == NO_PRIOR else data_path(prior),
            rank=rank,
            size=(side, side),
            blocks=blocks,
            trainer=TrainerSettings(
                steps,
                seed=seed,
                precision="float32" if base.dtype == torch.float32 else "bf16",
                save_every=SAVE_EVERY,
            ),
        )
        run = replace(
            run,
            optimiser=replace(run.optimiser, lr=learning_rate),
            ar=replace(run.ar, checkpointing=not base.is_mini),
        )
        plan = ShotScript.parse(sample_script).plan(FPS) if sample_script.strip() else None
        view = TrainingView(str(cls.hidden.unique_id), [])
        known = "" if prior == NO_PRIOR else prior
        training = LoraTraining(base, run, data, known, output_name, sample_every, plan, view)
        with torch.inference_mode(False):  # the host runs nodes in it, and it knows no gradients
            result = training.train()
        changed, report = with_lora(base.model, str(result.lora), 1.0)
        shown = {"images": [saved(result.folder / PLOT_FILE)], "text": ("\n".join([*view.notes, report]),)}
        if result.sample is not None:
            shown["video"] = [saved(result.sample)]
        return io.NodeOutput(changed, result.lora.name, ui=shown)


def _check_name(name: str) -> None:
    """Raises ValueError for a name that is none of a file."""
    if not name.strip() or PurePath(name.replace("\\", "/")).name != name:
        raise ValueError(f"output_name {name!r} must be a name without folders: the LoRA goes to models/loras")
