"""The memory of the device that a model runs on."""

from __future__ import annotations

import os

import torch


def device_memory(device: torch.device) -> int | None:
    """Bytes that are free on a card, or bytes of the host's memory; None if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
