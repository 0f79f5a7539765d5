"""Snapshot of a film between two blocks: the KV cache as a value, which can be saved and continued from."""

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
# The name of the tensor of the last latent frame; those of the pools are numbered.
LAST = "last"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State after the clean pass of block `next_block` − 1.

    kind: the settings that a run must share to continue from it (model, block shape, cache, guidance), name → value.
    pools: the tensors of the occupied slots on the CPU, for each branch of guidance; see `Pool.tensors`. last: the last
    latent frame `[B, C, 1, H, W]` of the film so far, float32 on the CPU, if its seams are aligned.
    """

    kind: Mapping[str, str]
    window: WindowState
    pools: tuple[tuple[Tensor, ...], ...]
    last: Tensor | None = None

    @property
    def next_block(self) -> int:
        """Index of the block that comes next."""
        return self.window.next

    def save(self, path: Path) -> None:
        """Writes the snapshot as one safetensors file."""
        tensors = {f"{i}.{j}": tensor for i, pool in enumerate(self.pools) for j, tensor in enumerate(pool)}
        if self.last is not None:
            tensors[LAST] = self.last
        # Without recalled blocks the file is that of an earlier version.
        window = {name: value for name, value in asdict(self.window).items() if (name, value) != ("recalled", ())}
        state = {"kind": dict(self.kind), "window": window, "pools": [len(pool) for pool in self.pools]}
        save_file(tensors, path, {"format": FORMAT, "state": json.dumps(state), "digest": _digest(tensors)})

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Reads a file that `save` wrote.

        Raises ValueError if the file is not a snapshot or is damaged, and OSError if it cannot be read.
        """
        try:
            opened = safe_open(path, "pt")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a snapshot of a LongLive film ({error})") from error
        with opened as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = metadata.get("format")
                raise ValueError(f"{path} is not a snapshot of a LongLive film (format {found!r}, not {FORMAT!r})")
            state = json.loads(metadata["state"])
            names = [[f"{i}.{j}" for j in range(count)] for i, count in enumerate(state["pools"])]
            last = [LAST] if LAST in file.keys() else []  # noqa: SIM118
            # Cloned, because tensors of a memory-mapped file would keep the file open.
            tensors = {name: file.get_tensor(name).clone() for pool in [*names, last] for name in pool}
        if metadata.get("digest") != _digest(tensors):
            raise ValueError(f"{path} is damaged: its tensors do not match their checksum; delete the file")
        pools, window = tuple(tuple(tensors[name] for name in pool) for pool in names), state["window"]
        recalled = tuple(window.get("recalled", ()))
        state_of_window = WindowState(tuple(window["blocks"]), window["pin"], window["next"], recalled)
        return cls(state["kind"], state_of_window, pools, tensors.get(LAST))

    def check_kind(self, kind: Mapping[str, str]) -> None:
        """Raises ValueError if a run of this kind cannot continue from the snapshot, naming each differing setting."""
        differences = [
            f"{name}: saved {self.kind.get(name)}, now {kind.get(name)}"
            for name in sorted({*kind, *self.kind})
            if self.kind.get(name) != kind.get(name)
        ]
        if differences:
            raise ValueError(f"the snapshot was made with other settings; {'; '.join(differences)}")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Checksum over names, shapes, dtypes and bytes of tensors on the CPU."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
