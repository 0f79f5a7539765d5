"""CausalWan as a MODEL of the host, which patches, offloads and frees its weights like those of any other model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.wan.model import WanModel
from comfy.patcher_extension import CallbacksMP, merge_nested_dicts
from torch import Tensor

from ..longlive_core.model import CausalWan, KeyValue, KVCache, TextKVCache, WanConfig
from ..longlive_core.model.attention import Attention
from ..longlive_core.model.fp8 import FP8Linear
from ..longlive_core.model.fp8_gate import choose_attention
from ..longlive_core.weights import Checkpoint, CheckpointError, inspect_checkpoint
from ..longlive_core.weights.metadata import merged_loras
from .attention import attention_format, usual_attention
from .device_lock import DeviceLock
from .fp8_model import check_patches, host_fp8_layers
from .lora_beside import add_beside, loras_beside, moved_beside
from .patched_parameters import patch_parameters

DTYPES = [torch.bfloat16, torch.float16, torch.float32]

# The attachment of a MODEL with its file.
CHECKPOINT = "longlive_checkpoint"


class CausalWanConfig(comfy.supported_models_base.BASE):
    """The model configuration that the host requires."""

    unet_config: ClassVar[dict[str, Any]] = {"image_model": "longlive", "disable_unet_model_creation": True}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    sampling_settings: ClassVar[dict[str, float]] = {"shift": 5.0}
    latent_format = comfy.latent_formats.Wan22
    supported_inference_dtypes = DTYPES


class CausalWanModel(comfy.model_base.BaseModel):
    """The host's wrapper around `CausalWan`."""

    def __init__(self, kind: CausalWanConfig, config: WanConfig, device: torch.device) -> None:
        super().__init__(kind, comfy.model_base.ModelType.FLOW, device=device)
        ops = comfy.ops.pick_operations(kind.unet_config["dtype"], kind.manual_cast_dtype, model_config=kind)
        self.diffusion_model = CausalWan(config, ops, device=device, dtype=kind.unet_config["dtype"])
        self.diffusion_model.requires_grad_(False).eval()
        comfy.model_management.archive_model_dtypes(self.diffusion_model)

    def _apply_model(self, x: Tensor, t: Tensor, *_: object, **inputs: Any) -> Tensor:  # noqa: ANN401
        """Called by `apply_model` behind the wrappers of other nodes. Raises ValueError for the host's own samplers."""
        if "kv" not in inputs:
            raise ValueError(
                "this MODEL makes films block by block with a KV cache, which this sampler does not support: connect "
                "it to LongLive Streaming Sampler"
            )
        return self.diffusion_model(x, t, inputs["text"], inputs["kv"], inputs["positions"])


class HostedModel:
    """A `FlowModel` over a loaded MODEL: calls go through the host's patches and wrappers, under the device lock."""

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, device_lock: DeviceLock) -> None:
        self._patcher = patcher
        self._model: CausalWanModel = patcher.model
        self._device_lock = device_lock
        self._options = comfy.model_patcher.create_model_options_clone(patcher.model_options)["transformer_options"]
        merge_nested_dicts(self._options.setdefault("wrappers", {}), patcher.wrappers, copy_dict1=False)
        self.config: WanConfig = self._model.diffusion_model.config
        self.device: torch.device = patcher.load_device
        self.dtype: torch.dtype = self._model.get_dtype_inference()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostedModel) and self._patcher is other._patcher

    def __hash__(self) -> int:
        return id(self._patcher)

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        inputs = {"text": text, "kv": kv, "positions": positions}
        with self._device_lock.work():
            return self._model.apply_model(x, t, transformer_options=self._options, **inputs)

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        with self._device_lock.work():
            self._model.diffusion_model.write_kv(x, t, text, kv, positions)

    def text_kv(self, text: Tensor) -> tuple[KeyValue, ...]:
        with self._device_lock.work():
            return self._model.diffusion_model.text_kv(text)

    @property
    def attention(self) -> Attention:
        """The attention function of the MODEL. In FP8 each layer is compared first, with the loaded weights."""
        usual = usual_attention(self.device, self._options)
        return choose_attention(self, usual, attention_format(self._patcher)).function


def make_patcher(
    config: WanConfig,
    state: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    latent_format: comfy.latent_formats.LatentFormat | None = None,
    fp8_layers: dict[str, FP8Linear] | None = None,
) -> comfy.model_patcher.ModelPatcher:
    """Makes a MODEL of weights by Wan's names; quantised weights have the host's format.

    dtype: the dtype of unquantised weights in memory; None keeps theirs if the device can compute in it. fp8_layers:
    linear layers that `state` does not have, see `host_fp8_layers`.
    """
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    kind = CausalWanConfig(CausalWanConfig.unet_config)
    if latent_format is not None:
        kind.latent_format = latent_format
    kind.quant_config = comfy.utils.detect_layer_quantization(state, "")
    kind.memory_usage_factor = config.dim / 2222
    weights = None if kind.quant_config is not None else comfy.utils.weight_dtype(state)
    dtype = dtype or comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state), supported_dtypes=DTYPES, weight_dtype=weights
    )
    cast = comfy.model_management.unet_manual_cast(
        None if kind.quant_config is not None else dtype, device, kind.supported_inference_dtypes
    )
    kind.set_inference_dtype(dtype, cast, device=device)
    model = CausalWanModel(kind, config, offload)
    if fp8_layers is not None:
        host_fp8_layers(model.diffusion_model, fp8_layers, model.get_dtype_inference())
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)
    model.load_model_weights(dict(state), "", assign=patcher.is_dynamic())
    patcher.add_callback(CallbacksMP.ON_LOAD, patch_parameters)
    return patcher


def remember_checkpoint(model: comfy.model_patcher.ModelPatcher, checkpoint: Checkpoint) -> None:
    """Attaches to a MODEL its file and the names of the LoRAs that are merged into it."""
    model.set_attachments(CHECKPOINT, (checkpoint.source.path, merged_loras(checkpoint.source)))


def checkpoint_of(model: comfy.model_patcher.ModelPatcher) -> tuple[Path, tuple[str, ...]] | None:
    """The file of a MODEL and the names of the LoRAs that are merged into it; None if they are not known."""
    return model.get_attachment(CHECKPOINT)


def _causal_checkpoint(model: comfy.model_patcher.ModelPatcher) -> Checkpoint | None:
    """The file of a MODEL that the host loaded, if its metadata say that it is causal."""
    _, arguments = (model.cached_patcher_init or (None, ()))[:2]
    if not arguments or not isinstance(arguments[0], str):
        return None
    try:
        checkpoint = inspect_checkpoint(arguments[0])
    except (CheckpointError, OSError):
        return None
    return checkpoint if checkpoint.causal else None


def as_causal(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """Returns the MODEL if it is ours, or a new MODEL with the weights of a causal Wan 5B that the host loaded.

    LoRAs of core's loader run beside quantised weights, see `moved_beside`.
    Raises ValueError that names the connected model and the file to use, and as `check_patches`.
    """
    inner = model.model
    if isinstance(inner, CausalWanModel):
        return check_patches(moved_beside(model))
    wan = getattr(inner, "diffusion_model", None)
    if not isinstance(wan, WanModel) or wan.out_dim != 48:
        raise ValueError(
            f"this MODEL is {type(inner).__name__}; LongLive Streaming Sampler needs LongLive 2.0 5B or LongLive "
            "Mini: load it with LongLive Model Loader or LongLive Mini"
        )
    checkpoint = _causal_checkpoint(model)
    if checkpoint is None:
        raise ValueError(
            "this MODEL is the ordinary (bidirectional) Wan 2.2 5B, or a LongLive file whose metadata do not mark it "
            "as causal. Wan 2.2 attends to the whole clip at once and cannot make a film block by block: get "
            "LongLive-2.0-5B and load it with LongLive Model Loader"
        )
    model.detach()
    state = wan.state_dict()
    causal = make_patcher(WanConfig.from_state_dict(state), state, dtype=inner.get_dtype())
    causal.patches, causal.patches_uuid = model.patches.copy(), model.patches_uuid
    causal.model_options = comfy.model_patcher.create_model_options_clone(model.model_options)
    for adapters in loras_beside(model):
        add_beside(causal, adapters)
    remember_checkpoint(causal, checkpoint)
    return moved_beside(causal)
