"""A MODEL that several processes share: what they read from files, and what they cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from uuid import UUID

import comfy.model_patcher
from comfy.quant_ops import QuantizedTensor

from ..longlive_core.mini import MINI_DIT
from ..longlive_core.parallel import check_size
from ..longlive_core.render.shared_model import SharedLora, SharedModel
from ..longlive_core.sampling import RemoteModel
from ..longlive_core.sampling.split import BRANCHES
from ..longlive_core.types import LatentShape
from .attention import attention_format
from .fp8_model import is_fp8_fast
from .model import checkpoint_of
from .model_ranks import ModelRanks

# The attachments of a MODEL with the LoRAs of our node, and with its `Sharing`.
LORAS, SHARING = "longlive_loras", "longlive_sharing"


@dataclass(frozen=True)
class AppliedLoras:
    """The LoRAs of our node. patches, injections: what the MODEL has if no other node has changed it since."""

    loras: tuple[SharedLora, ...]
    patches: UUID
    injections: frozenset[str]


@dataclass(frozen=True)
class Sharing:
    """How a MODEL is shared: by so many processes, one a GPU. split_guidance: half of them have a branch each."""

    gpus: int
    ranks: ModelRanks
    split_guidance: bool = False

    def model(self, model: comfy.model_patcher.ModelPatcher, should_stop: Callable[[], bool] | None) -> RemoteModel:
        """The model of the processes; see `ModelRanks.model`."""
        shared, config = shared_model(model), model.model.diffusion_model.config
        return self.ranks.model(shared, self.gpus, config, should_stop, split_guidance=self.split_guidance)

    def check(self, model: comfy.model_patcher.ModelPatcher, shape: LatentShape, guidance: float) -> None:
        """Raises ValueError if so many processes cannot share the MODEL, or films of this size and guidance."""
        if self.split_guidance and guidance == 1.0:
            raise ValueError(
                "guidance 1 has one branch, which split_guidance of LongLive Multi-GPU cannot split: set another "
                "guidance, or turn split_guidance off"
            )
        shared_model(model)
        config = model.model.diffusion_model.config
        of_branch = self.gpus // BRANCHES if self.split_guidance else self.gpus
        check_size(of_branch, config.num_heads, prod(config.grid(shape.height, shape.width)))


def share(model: comfy.model_patcher.ModelPatcher, sharing: Sharing | None) -> comfy.model_patcher.ModelPatcher:
    """Returns the MODEL shared by processes, or by none. Raises ValueError as `shared_model`."""
    if sharing is not None:
        shared_model(model)
    changed = model.clone()
    changed.set_attachments(SHARING, sharing)
    return changed


def sharing_of(model: comfy.model_patcher.ModelPatcher) -> Sharing | None:
    """How a MODEL is shared; None if it is not."""
    return model.get_attachment(SHARING)


def remember_lora(
    model: comfy.model_patcher.ModelPatcher, before: comfy.model_patcher.ModelPatcher, lora: SharedLora
) -> None:
    """Attaches to a MODEL the LoRA that our node has added to the one before."""
    loras = _loras(before)
    injections = frozenset(model.injections)
    known = None if loras is None else AppliedLoras((*loras, lora), model.patches_uuid, injections)
    model.set_attachments(LORAS, known)


def shared_model(model: comfy.model_patcher.ModelPatcher) -> SharedModel:
    """The files of a MODEL. Raises ValueError, naming it, for what other processes cannot read from files."""
    wan, loras, known = model.model.diffusion_model, _loras(model), checkpoint_of(model)
    if known is None and wan.config != MINI_DIT:
        raise _unshared("the file of its weights is not known", "load it with LongLive Model Loader")
    if loras is None:
        raise _unshared("another node has changed its weights", "use LongLive DMD LoRA in place of other LoRA loaders")
    if others := _changes(model):
        raise _unshared(f"another node has changed how it computes ({', '.join(others)})", "take that node out")
    merged = [lora.path.name for lora in loras if lora.merged and lora.strength]
    if merged and any(isinstance(weight, QuantizedTensor) for weight in wan.parameters()):
        raise _unshared(f"LoRA {merged[0]} is merged into quantised weights", "set mode of LongLive DMD LoRA to bypass")
    return SharedModel(
        None if known is None else known[0],
        model.model.get_dtype_inference(),
        wan.config.text_len,
        loras,
        attention_format(model),
        fp8=is_fp8_fast(wan),
    )


def _unshared(reason: str, remedy: str) -> ValueError:
    return ValueError(
        f"GPUs cannot share this MODEL: {reason}, and each process reads the model from its files; {remedy}, or set "
        "gpus of LongLive Multi-GPU to off"
    )


def _loras(model: comfy.model_patcher.ModelPatcher) -> tuple[SharedLora, ...] | None:
    """The LoRAs of a MODEL, None if it has changes of other nodes."""
    if not model.patches and not model.injections:
        return ()
    known: AppliedLoras | None = model.get_attachment(LORAS)
    if known is None or (known.patches, known.injections) != (model.patches_uuid, frozenset(model.injections)):
        return None
    return known.loras


def _changes(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """What other nodes have changed in how a MODEL computes."""
    options = {**model.model_options, **model.model_options.get("transformer_options", {})}
    wrappers = {kind: by_key for kind, by_key in model.wrappers.items() if any(by_key.values())}
    return sorted({*options, *wrappers, *model.object_patches} - {"transformer_options"})
