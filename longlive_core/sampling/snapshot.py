"""A film between two blocks, as a value: enough to go on bit for bit, in this process or another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..memory import WindowState

FORMAT = "longlive-snapshot-1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State after the blocks before `window.next`.

    kind: what the run must have in common to take it over (model, size, memory …), name → value.
    pools: tensors of each memory's occupied slots, on the CPU; the second memory is that of guidance.
    """

    kind: Mapping[str, str]
    window: WindowState
    pools: tuple[tuple[Tensor, ...], ...]

    @property
    def next_block(self) -> int:
        """Index of the block that comes next."""
        return self.window.next

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        tensors = {f"{pool}.{i}": tensor for pool, kept in enumerate(self.pools) for i, tensor in enumerate(kept)}
        state = {"kind": dict(self.kind), "window": asdict(self.window), "pools": [len(kept) for kept in self.pools]}
        save_file(tensors, path, {"format": FORMAT, "state": json.dumps(state), "digest": _digest(tensors)})

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Reads what `save` wrote. Raises ValueError for any other file, OSError for one that cannot be read."""
        try:
            opened = safe_open(path, "pt")
        except SafetensorError as error:
            raise ValueError(f"{path} is no snapshot of a LongLive film ({error})") from error
        with opened as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is no snapshot of a LongLive film (format {metadata.get('format')!r})")
            state = json.loads(metadata["state"])
            names = [[f"{pool}.{i}" for i in range(count)] for pool, count in enumerate(state["pools"])]
            # Copies: the file is not held open by tensors that lie in it.
            tensors = {name: file.get_tensor(name).clone() for pool in names for name in pool}
        if metadata.get("digest") != _digest(tensors):
            raise ValueError(f"{path} is damaged (its memory is not what was written)")
        pools, window = tuple(tuple(tensors[name] for name in pool) for pool in names), state["window"]
        return cls(state["kind"], WindowState(tuple(window["blocks"]), window["pin"], window["next"]), pools)

    def check_kind(self, kind: Mapping[str, str]) -> None:
        """Raises ValueError that names each setting in which the run that takes over differs."""
        differences = [
            f"{name}: saved {self.kind.get(name)}, now {kind.get(name)}"
            for name in sorted({*kind, *self.kind})
            if self.kind.get(name) != kind.get(name)
        ]
        if differences:
            raise ValueError(f"the snapshot belongs to another run; {'; '.join(differences)}")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Fingerprint of tensors on the CPU: names, shapes, dtypes and every bit."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
