"""The fused FP8 linear layers of the core as layers of a MODEL: made when it is loaded, kept by the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import comfy.model_patcher
import torch
from torch import Tensor, nn

from ..kernels import quantize_fp8_rows
from ..longlive_core.model import CausalWan
from ..longlive_core.model.fp8 import FP8Linear, has_fp8_products
from ..longlive_core.model.linears import Scratch
from ..longlive_core.weights import Checkpoint, CheckpointError
from ..longlive_core.weights.layer_formats import COMPANIONS
from ..longlive_core.weights.packing import unpack
from ..longlive_core.weights.quantized_linear import quantized_linear
from .fp8_linear import FP8Weights, HostedFP8Linear

# Layers that have one input, and whose weights are therefore one matrix, by the module that has them.
ONE_INPUT = {"self_attn": ("q", "k", "v"), "cross_attn": ("k", "v")}
BLOCKS = "blocks."


def check_fp8(checkpoint: Checkpoint) -> None:
    """Raises ValueError for a checkpoint whose layers cannot become FP8, before its weights are read."""
    source, names = checkpoint.source, checkpoint.names
    for layer, form in checkpoint.quantized.items():
        dtype = source.specs[names[f"{layer}.weight"]].dtype
        if layer.startswith(BLOCKS) and dtype != "F8_E4M3":
            raise ValueError(
                f"precision fp8 fast: {source.path.name} has layers in {form} ({dtype}, such as {layer}), and to round "
                "them again would cost more than it saves: choose precision auto, or a bf16, fp16 or fp8 (E4M3) file"
            )


def take_fp8_layers(
    checkpoint: Checkpoint, state: dict[str, Tensor], device: torch.device, offload: torch.device
) -> dict[str, FP8Linear]:
    """Takes the linear layers of the blocks out of a state by Wan's names; returns them in FP8 by name.

    Float weights are rounded on `device`, layer by layer; FP8 weights stay what they are. Other quantised layers of
    the state become bf16. Raises ValueError for FP8 layers whose inputs are to be scaled first.
    """
    layers: dict[str, FP8Linear] = {}
    scratch = Scratch()
    for name, shape in checkpoint.linears.items():
        taken = name.startswith(BLOCKS)
        own = [f"{name}.{part}" for part in ("weight", *COMPANIONS, *(["bias"] if taken else []))]
        tensors = {key: state.pop(key) for key in own if key in state}
        if not taken:
            state[f"{name}.weight"] = _float(checkpoint, name, tensors)
            continue
        try:
            layers[name] = _fp8(name, tensors, shape, scratch, device).to(offload)
        except CheckpointError as error:
            raise ValueError(str(error)) from error
        layers[name].activations = "fp8"
    return layers


def _fp8(
    name: str, tensors: Mapping[str, Tensor], shape: tuple[int, ...], scratch: Scratch, device: torch.device
) -> FP8Linear:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    if weight.dtype != torch.float8_e4m3fn:
        return FP8Linear(*quantize_fp8_rows(weight.to(device)), bias, scratch)
    layer = quantized_linear(name, tensors, shape, scratch, bias.dtype)
    assert isinstance(layer, FP8Linear)
    return layer


def _float(checkpoint: Checkpoint, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The weight of a layer that stays a float one."""
    weight = tensors[f"{name}.weight"]
    if name not in checkpoint.quantized:
        return weight
    parts = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items()}
    shape = checkpoint.linears[name]
    return unpack({"weight_scale": torch.ones(()), **parts}, (shape[0], shape[1])).bfloat16()


def host_fp8_layers(model: CausalWan, layers: dict[str, FP8Linear], dtype: torch.dtype) -> None:
    """Puts FP8 layers by name in place of the model's, with weights that the host keeps. dtype: of the model.

    It takes the layers out of `layers`, so that no weight is there twice for long.
    """
    for name in tuple(layers):
        parent, _, own = name.rpartition(".")
        together = ONE_INPUT.get(parent.rpartition(".")[2], ())
        together = together if own in together else (own,)
        if own != together[0]:
            continue
        weights = FP8Weights({part: layers.pop(f"{parent}.{part}") for part in together}, dtype)
        for part in together:
            model.set_submodule(f"{parent}.{part}", HostedFP8Linear(part, weights))


def is_fp8_fast(model: nn.Module) -> bool:
    """Whether the layers of a transformer are such layers."""
    return any(isinstance(layer, HostedFP8Linear) for layer in model.modules())


def fp8_notes(device: torch.device) -> list[str]:
    """What the user of `fp8 fast` should know of a device: nothing or one line."""
    if has_fp8_products(device):
        return []
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [
        f"fp8 fast: {name} has no FP8 products, so the FP8 numbers are multiplied in float32: the film is that of a "
        "card with FP8 (compute capability 8.9 or later), more slowly than with precision auto"
    ]


def check_patches(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """Returns the MODEL. Raises ValueError for changes of FP8 weights, which would have to be rounded again."""
    changed = sorted(_changed(model.model, model.patches))
    if changed:
        raise ValueError(
            f"this MODEL was loaded with precision fp8 fast, and a LoRA changes weights or biases of {len(changed)} of "
            f"its layers (such as {changed[0]}), which would have to be rounded to FP8 again: set mode of LongLive DMD "
            "LoRA to auto or bypass, or merge the LoRA into the bf16 file with LongLive Convert Checkpoint"
        )
    return model


def _changed(model: nn.Module, patches: Iterable[str]) -> set[str]:
    names = {name for name, layer in model.named_modules() if isinstance(layer, HostedFP8Linear)}
    return names & {key.rpartition(".")[0] for key in patches}
