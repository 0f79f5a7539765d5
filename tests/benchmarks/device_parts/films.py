"""Whole films of the 5B model with random weights: sampling, decoding, both at once, the first frame, into a file.

A film has ten blocks; its steady figures are medians of the blocks whose window is full. End to end, the stages run in
threads as in a render, and frames count when they are on the host.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.model.cuda_graph import cuda_capture
from longlive.longlive_core.pipeline.decode import QUEUE_DEPTH, DecodedFrame, decode, decoder_cuda_stream
from longlive.longlive_core.pipeline.stages import Pipeline, sample
from longlive.longlive_core.sampling.generate import Generation, generate
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import FPS, SPACE_FACTOR, BlockSpec
from longlive.longlive_core.vae import ChunkDecoder, DecodeStream, VAEConfig, WanVAE
from torch import Tensor

from .arms import ARMS, FIVE_B, TOY, Size
from .ladder import clear
from .part import Found, Skipped, Task
from .runner import random_model
from .timing import CUDA, DEVICE, timed
from .tiny import TinyDecoder

BLOCKS, STEADY = 10, 4
"""Blocks of a film, and the first one whose window is full, with the blocks before it in memory."""
ARM_OF = {"bf16": "d", "fp8": "e", "nvfp4": "f"}
"""The arm of the ladder with weights of this format."""


@dataclass
class Models:
    """Makes the models of the films, and keeps the last one, because those of all formats do not fit a small card."""

    size: Size
    toy: bool
    weights: str = ""
    model: CausalWan | None = None

    def transformer(self, weights: str) -> CausalWan:
        """The model with weights in a format. Raises Skipped if the device cannot run it."""
        arm = ARMS[ARM_OF[weights]]
        if arm.not_run is not None:
            raise Skipped(arm.not_run)
        if self.model is None or self.weights != weights:
            self.model = None
            clear()
            self.model, self.weights = random_model(self.size.config, arm), weights
        return self.model

    def decoder(self, name: str) -> ChunkDecoder:
        """The tiny or the full decoder, in bf16 on a GPU."""
        torch.manual_seed(0)
        with torch.device(DEVICE):
            decoder = TinyDecoder() if name == "tiny" else WanVAE(self._vae())
        decoder = decoder.to(torch.bfloat16 if CUDA else torch.float32).requires_grad_(False).eval()
        if isinstance(decoder, WanVAE):
            decoder.to_channels_last()
            return decoder
        return decoder.to(memory_format=torch.channels_last) if CUDA else decoder

    def _vae(self) -> VAEConfig:
        width = {"dim": 16, "dec_dim": 16} if self.toy else {}
        return VAEConfig(mean=(0.0,) * 48, std=(1.0,) * 48, **width)

    def film(
        self, weights: str, kv: str = "bf16", steps: int = 4, blocks: int = BLOCKS, *, graphs: bool = False
    ) -> Generation:
        """A film in one shot. graphs: with CUDA graphs."""
        size = self.size
        specs = (BlockSpec(i, 0, "a", False, None, size.frames * i, size.frames) for i in range(blocks))
        memory = MemoryConfig(window=4 * size.frames, sink=size.frames, kv_format=kv)
        text = torch.zeros(size.config.text_len, size.config.text_dim)
        plan = BlockPlan(tuple(specs), FPS, size.frames)
        model = self.transformer(weights)
        capture = cuda_capture(model.device) if graphs else None
        return generate(model, plan, lambda _: text, memory, size=size.latent, steps=steps, capture=capture)


def tasks(toy: bool) -> list[Task]:
    """One task for each row, in an order that makes each model once."""
    models = Models(TOY if toy else FIVE_B, toy)
    blocks = 5 if toy else BLOCKS
    rows = [Task(f"decoder, {name}", partial(decoder_row, models, name)) for name in ("tiny", "full")]
    for weights in ("bf16", "fp8"):
        for steps in (4, 2) if weights == "bf16" else (4,):
            rows.append(
                Task(f"denoise, {weights}, {steps} steps", partial(denoise_row, models, weights, steps, blocks))
            )
        for decoder in ("tiny", "full"):
            rows.append(Task(f"film, {weights}, {decoder}", partial(film_row, models, weights, decoder, blocks)))
        if weights == "bf16":
            rows.append(Task("film, bf16, tiny, h264", partial(film_row, models, weights, "tiny", blocks, file=True)))
    return rows


@torch.inference_mode()
def decoder_row(models: Models, name: str) -> Found:
    """Milliseconds of a decoder by itself, frames on the host: of the first latent frame, and of a video frame."""
    clear()
    size = models.size
    stream = DecodeStream(models.decoder(name), cuda_stream=decoder_cuda_stream(torch.device(DEVICE)))
    latents = torch.randn(1, size.config.channels, 8, *size.latent)

    def one(latent: Tensor) -> None:
        stream.feed(latent)
        stream.flush()

    times = [timed(partial(one, latent)).wall for latent in latents.split(1, dim=2)]
    return Found({"first latent frame, ms": times[0]}, {"ms a frame": [time / 4 for time in times[3:]]})


@torch.inference_mode()
def denoise_row(models: Models, weights: str, steps: int, blocks: int) -> Found:
    """Milliseconds of sampling a block, latents on the host."""
    marks = [perf_counter()]
    for _ in models.film(weights, steps=steps, blocks=blocks):
        marks.append(perf_counter())
    spent = [1e3 * (end - start) for start, end in pairwise(marks)]
    frames = 4 * models.size.frames
    return Found({"first block, ms": spent[0], "frames of a block": frames}, {"ms a block": spent[STEADY:]})


def film_row(models: Models, weights: str, decoder: str, blocks: int, *, file: bool = False) -> Found:
    """Milliseconds between the last frames of blocks on the host, and those to the first frame."""
    if file and find_spec("av") is None:
        raise Skipped("av is not installed")
    clear()
    vae = models.decoder(decoder)
    film = models.film(weights, blocks=blocks)
    with tempfile.TemporaryDirectory() as folder, Pipeline() as pipeline:
        target = Path(folder) / "film.mp4" if file else None
        began = perf_counter()
        stream = DecodeStream(vae, cuda_stream=decoder_cuda_stream(torch.device(DEVICE)))
        pieces = pipeline.stage("decoding", decode(sample(pipeline, film, "async"), stream), QUEUE_DEPTH)
        marks = frame_marks(pieces, target, models.size)
    ends = [at for at, last in marks if last]
    spent = [1e3 * (end - start) for start, end in pairwise(ends)]
    figures: dict[str, float | str] = {
        "first frame, ms": 1e3 * (marks[0][0] - began),
        "frames of a block": 4 * models.size.frames,
    }
    return Found(figures, {"ms a block": spent[STEADY - 1 :]})


def frame_marks(pieces: Iterator[DecodedFrame], target: Path | None, size: Size) -> list[tuple[float, bool]]:
    """When each piece of frames is on the host, or in the file, and whether it is the last one of its block."""
    if target is None:
        return [(_arrival(piece), piece.last) for piece in pieces]
    # Imported here, because they need av.
    from longlive.longlive_core.pipeline.write import NewFile
    from longlive.longlive_core.video import open_film

    height, width = (SPACE_FACTOR * cells for cells in size.latent)
    file = NewFile(open_film(target, width=width, height=height))
    marks: list[tuple[float, bool]] = []
    for piece in pieces:
        file.write(piece)
        marks.append((perf_counter(), piece.last))
    file.close(0)
    return marks


def _arrival(piece: DecodedFrame) -> float:
    assert piece.frames is not None
    piece.frames.wait()
    return perf_counter()
