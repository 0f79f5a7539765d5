"""The device that decodes a film, where it is not the one that samples it."""

from __future__ import annotations

import torch

CPU, LAST = "cpu", "last"


def decode_device(name: str, gpus: int | None = None) -> str:
    """The torch device that `name` means: `cpu`, `last`, or the index of a visible GPU.

    gpus: of this machine, by default as many as it has. Raises ValueError for one that it lacks, with what it has.
    """
    count = torch.cuda.device_count() if gpus is None else gpus
    if name == CPU:
        return CPU
    if not count:
        raise ValueError(f"--decode-gpu {name}: this machine has no GPU; use cpu, or leave --decode-gpu out")
    index = str(count - 1) if name == LAST else name
    if not (index.isascii() and index.isdecimal() and int(index) < count):
        has = "one GPU: use 0" if count == 1 else f"{count} GPUs: use last, or an index from 0 to {count - 1}"
        raise ValueError(f"--decode-gpu {name}: this machine has {has}")
    return f"cuda:{int(index)}"
