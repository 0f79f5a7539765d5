"""Cuts this folder's files out of the whole set of recorded reference runs.

    LONGLIVE_GOLDEN=<folder of the whole set> python tests/golden/reference/subset.py    writes the same bytes each time

Numbers are copied, never computed; README.md says what is left out of which file. The one change of a number's form:
`x` of the bf16 replay is stored in bfloat16, which is how the model under test is shown it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

Tensors = dict[str, Tensor]
Facts = dict[str, str]

WEIGHTS = "weights_tiny"
# Calls whose flow stays: after evictions, at a cut, without the prompt, with the image, and clean passes.
FLOWS = {
    "generate_roll8": (25, 30, 44),
    "generate_relrope_roll": (25, 34),
    "generate_cfg3": (21, 28),
    "generate_i2v": (0, 14),
    "generate_steps2": (4, 8),
}
BF16_SOURCE, BF16 = "generate_steps2", "generate_bf16_steps2"
# One latent frame of the VAE becomes four video frames, the first one a single frame: each position in a chunk once.
VAE, LATENT_FRAMES, VIDEO_FRAMES = "vae_a", 3, (0, 1, 4, 6, 7)
ENCODER = ("weights.encoder.", "weights.conv1.", "video", "encoded")
VECTORS, MATRICES = "nvfp4_vectors", ("tiny",)


def cut(source: Path, target: Path) -> None:
    """Writes every file of the subset into `target`. Raises OSError where the whole set is not in `source`."""
    write(target, WEIGHTS, *read(source, WEIGHTS))
    for name, kept in FLOWS.items():
        write(target, name, *thin_calls(*read(source, name), kept))
    write(target, BF16, *as_bf16_replay(*read(source, BF16_SOURCE)))
    write(target, VAE, *decoder_only(*read(source, VAE)))
    write(target, VECTORS, *some_vectors(*read(source, VECTORS)))


def thin_calls(tensors: Tensors, facts: Facts, kept: Iterable[int]) -> tuple[Tensors, Facts]:
    """Inputs, output and facts whole; of the calls, the flow of those kept. A free run is compared to nothing else."""
    kept = list(kept)
    wanted = {f"call.{index}.flow" for index in kept}
    left = {name: value for name, value in tensors.items() if not name.startswith("call.") or name in wanted}
    return left, facts | {"kept_calls": json.dumps(kept)}


def as_bf16_replay(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """A float32 run that a bfloat16 model replays call by call.

    The limit of a call is ours: half of the 0.0072 that a correct model scores comes from rounding the weights.
    """
    run = json.loads(facts["run"]) | {"dtype": "bfloat16"}
    left = {name: value.bfloat16() if name.endswith(".x") else value for name, value in tensors.items()}
    limits = {"replay_tolerance": "0.01", "tolerance": "0.02"}
    whole = {name: value for name, value in facts.items() if name != "attended"}
    return left, whole | limits | {"run": json.dumps(run), "judges": "a bfloat16 model on a float32 run"}


def decoder_only(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """The decoder, the first latent frames and some of the video frames they become: decoding is causal."""
    left = {name: value for name, value in tensors.items() if not name.startswith(ENCODER)}
    left["latent"] = tensors["latent"][:, :, :LATENT_FRAMES]
    left["decoded"] = tensors["decoded"][:, :, list(VIDEO_FRAMES)]
    return left, facts | {"decoded_frames": json.dumps(VIDEO_FRAMES)}


def some_vectors(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """Some of the matrices, each with all that is recorded of it."""
    return {name: value for name, value in tensors.items() if name.split(".")[0] in MATRICES}, facts


def read(folder: Path, name: str) -> tuple[Tensors, Facts]:
    """The tensors of a recorded file and its metadata."""
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def write(folder: Path, name: str, tensors: Tensors, facts: Facts) -> None:
    """One safetensors file; its header is sorted, because the library orders metadata anew each time."""
    data = save({key: value.contiguous() for key, value in tensors.items()}, facts or None)
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:end])
    packed = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    (folder / f"{name}.safetensors").write_bytes(len(packed).to_bytes(8, "little") + packed + data[end:])


if __name__ == "__main__":
    if "LONGLIVE_GOLDEN" not in os.environ:
        sys.exit("set LONGLIVE_GOLDEN to the folder of the whole set of recorded runs")
    torch.set_num_threads(1)
    cut(Path(os.environ["LONGLIVE_GOLDEN"]), Path(__file__).parent)
