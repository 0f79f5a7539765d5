"""The fingerprint of a transformer's weights that the command line and ComfyUI share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .settings import fingerprint, tensor_bytes

# A weight with more values than SMALL is sampled at ROWS rows.
SMALL, ROWS = 4096, 4


def transformer_fingerprint(parameters: Mapping[str, Tensor], stored: int) -> str:
    """Computes the fingerprint of a transformer by its parameters; "" if some are quantised, which both hosts pack.

    parameters: by Wan's names. stored: number of tensors of its state; a layer that stores others is quantised.
    """
    if len(parameters) != stored or any(not value.is_floating_point() for value in parameters.values()):
        return ""
    return fingerprint(_parts(parameters))


def _parts(parameters: Mapping[str, Tensor]) -> Iterator[bytes]:
    for name in sorted(parameters):
        value = parameters[name].detach()
        yield f"{name} {tuple(value.shape)}".encode()
        whole = value.numel() <= SMALL or value.ndim < 2
        for part in [value] if whole else [value[len(value) * row // ROWS] for row in range(ROWS)]:
            yield tensor_bytes(part.to(torch.float32))
