"""The latents of a film in a folder, one file a block, with what it takes to go on from the last one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .engine import Generation
from .snapshot import Snapshot
from .types import Block, BlockSpec

FORMAT = "longlive-block-1"
SNAPSHOT = "snapshot.safetensors"


class LatentFolder:
    """`block_00000.safetensors` (tensor `latents` `[1, C, F, h, w]`, normalised) …, and a snapshot after the last.

    Every file is complete or absent: it is written beside its name and moved there. `settings` are what two runs must
    share to make one film (seed, steps, …), name → value; they are kept with every block.
    """

    def __init__(self, folder: Path | str, settings: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        self.settings = dict(settings)

    def prepare(self) -> None:
        """Makes the folder where it is not there. Raises OSError where nothing can be written in it."""
        self.folder.mkdir(exist_ok=True)
        probe = self.folder / ".writable"
        probe.touch()
        probe.unlink()

    def record(self, generation: Generation) -> Iterator[Block]:
        """The blocks of a run, each kept with the state after it before it is handed on.

        A run that starts at the film's first block takes an earlier film's blocks out of the folder. Raises OSError.
        """
        if generation.position == 0:
            for stale in (*self.folder.glob("block_*.safetensors"), self.folder / SNAPSHOT):
                stale.unlink(missing_ok=True)
        for block in generation:
            self._keep(block)
            _save(generation.snapshot().save, self.folder / SNAPSHOT)
            yield block

    def snapshot(self) -> Snapshot:
        """The state after the last block. Raises FileNotFoundError, or ValueError for a damaged file."""
        path = self.folder / SNAPSHOT
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.folder} has no {SNAPSHOT}, so no film can go on from it; name the folder of --save-latents"
            )
        return Snapshot.load(path)

    def blocks(self, specs: tuple[BlockSpec, ...]) -> Iterator[Block]:
        """The kept blocks of these specs, in order.

        Raises FileNotFoundError for a missing one, ValueError for one of another script or with other settings.
        """
        for spec in specs:
            yield self._load(spec)

    def check(self, specs: tuple[BlockSpec, ...]) -> None:
        """Raises what `blocks` would raise, without reading the latents."""
        for spec in specs:
            self._check(spec, _metadata(self._path(spec.index)))

    def _keep(self, block: Block) -> None:
        tensors = {"latents": block.latents.detach().cpu().contiguous()}
        facts = {"spec": json.dumps(asdict(block.spec)), "settings": json.dumps(self.settings)}
        _save(lambda path: save_file(tensors, path, {"format": FORMAT, **facts}), self._path(block.index))

    def _path(self, index: int) -> Path:
        return self.folder / f"block_{index:05}.safetensors"

    def _load(self, spec: BlockSpec) -> Block:
        path = self._path(spec.index)
        self._check(spec, _metadata(path))
        with safe_open(path, "pt") as file:
            return Block(spec, file.get_tensor("latents"))

    def _check(self, spec: BlockSpec, metadata: Mapping[str, str]) -> None:
        path = self._path(spec.index)
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is no block of a LongLive film (format {metadata.get('format')!r})")
        kept = {**json.loads(metadata["spec"]), **json.loads(metadata["settings"])}
        now = {**asdict(spec), **self.settings}
        differences = [
            f"{key} was {kept.get(key)!r}, now {value!r}" for key, value in now.items() if value != kept.get(key)
        ]
        if differences:
            raise ValueError(
                f"{path} belongs to another film: {'; '.join(differences)}; use the settings and script of "
                "the kept blocks, or render anew"
            )


def _metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; without it the film cannot be written from its start")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); render the film anew") from error


def _save(write: Callable[[Path], None], path: Path) -> None:
    partial = path.with_suffix(".partial")
    try:
        write(partial)
    except SafetensorError as error:  # the library's own error for a disk that is full
        raise OSError(f"cannot keep {path} ({error}); free some space or leave out --save-latents") from error
    os.replace(partial, path)
