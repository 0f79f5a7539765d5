"""Changes of a MODEL's norms and modulations by LoRAs, which the host leaves out when it loads the MODEL."""

from __future__ import annotations

import comfy.model_patcher
import comfy.utils
import torch


def patch_parameters(patcher: comfy.model_patcher.ModelPatcher, device: torch.device, *_: object) -> None:
    """Applies changes of parameters that no layer of the host has; the host calls it after it loaded the MODEL.

    With DynamicVRAM the host changes its own layers only. Without it, it changes other modules too, but not those with
    submodules: the blocks and the head, which have the modulations.
    """
    own = dict(patcher.model.named_parameters())
    for key in patcher.patches.keys() & own.keys():
        module = patcher.model.get_submodule(key.rpartition(".")[0])
        if hasattr(module, "comfy_cast_weights"):
            continue
        original = patcher.backup.get(key)
        if original is not None:
            if not patcher.is_dynamic():
                continue
            # A host that has changed it already gets the same result.
            comfy.utils.set_attr_param(patcher.model, key, original.weight)
        patcher.patch_weight_to_device(key, device_to=device)
        if not patcher.is_dynamic():
            # Else a host that loads more of the MODEL later changes it once more; `unpatch_model` takes it away.
            module.comfy_patched_weights = True
