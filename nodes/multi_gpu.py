"""The node that lets several GPUs share the work on a film."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import torch
from comfy_api.latest import io, ui

from ..longlive_core.parallel import SIZES
from .model import as_causal
from .routes.ranks import ranks
from .shared_model import Sharing, share
from .types import CATEGORY

OFF = "off"
GPUS = (OFF, *(str(size) for size in SIZES if size > 1))


class MultiGPU(io.ComfyNode):
    """MODEL to the same MODEL, which several processes share."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveMultiGPU",
            display_name="LongLive Multi-GPU",
            category=CATEGORY,
            description="Several GPUs share the work on every block of a film: each has all weights, and a share of "
            "the tokens and of the KV cache. Every other node works as before. Off on a machine with one GPU.",
            search_aliases=["longlive", "multi gpu", "parallel", "sequence parallel", "ulysses", "two gpus"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="From LongLive Model Loader, LongLive Mini or LongLive DMD LoRA: what has files."
                ),
                io.Combo.Input(
                    "gpus",
                    options=list(GPUS),
                    default=default_gpus(),
                    tooltip="How many GPUs share a film; fewer where the machine has fewer. off: the GPU of ComfyUI.",
                ),
                io.Boolean.Input(
                    "split_guidance",
                    default=False,
                    optional=True,
                    tooltip="For films with guidance: one half of the GPUs has the branch of the prompt, the other "
                    "half that of the negative prompt, so that each stores half of the K/V.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, for LongLive Streaming Sampler.")],
        )

    @classmethod
    def execute(cls, model: comfy.model_patcher.ModelPatcher, gpus: str, split_guidance: bool = False) -> io.NodeOutput:
        count, text = (1, "off: the GPU of ComfyUI makes the film") if gpus == OFF else usable(int(gpus))
        if split_guidance:
            check_split(gpus)
            text += "; each half has a branch of guidance" if count > 1 else ", with both branches of guidance"
        changed = share(as_causal(model), None if count == 1 else Sharing(count, ranks(), split_guidance))
        return io.NodeOutput(changed, ui=ui.PreviewText(text))


def default_gpus() -> str:
    """The most GPUs that this machine has and a film can use; off for one, and on the CPU."""
    device = comfy.model_management.get_torch_device().type
    return OFF if device == "cpu" or (count := usable(max(SIZES))[0]) == 1 else str(count)


def check_split(gpus: str) -> None:
    """Raises ValueError where the branches of guidance cannot take half of the chosen GPUs each."""
    if gpus == OFF:
        raise ValueError(
            "split_guidance gives each of two branches half of the GPUs, but gpus is off: set gpus to 2, 4 or 8, or "
            "turn split_guidance off"
        )


def usable(wanted: int) -> tuple[int, str]:
    """How many of so many GPUs this machine can use, and what the node says of it."""
    device = comfy.model_management.get_torch_device().type
    if device == "cpu":
        return wanted, f"no GPU: {wanted} processes share the CPU, which is slower than one process"
    if device != "cuda" or not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return 1, "off: GPUs share a film by NCCL, which this PyTorch does not have"
    has = torch.cuda.device_count()
    count = max(size for size in SIZES if size <= min(wanted, has))
    if count == 1:
        return 1, f"off: this machine has {has} GPU, and a film is shared by 2 or more"
    few = f"; this machine has {has}, not {wanted}" if count < wanted else ""
    return count, f"{count} GPUs share the film{few}"
