"""Bytes of each part of a film on a card, counted from shapes; nothing is allocated. 1 GB is 1e9 bytes.

What no shape tells was traced: the code ran on torch's meta device at 704x1280 and 480x832, and the most bytes of
tensors alive at a time were taken. These grow with the latent cells, so they are given per cell of a latent frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from ..memory import KV_FORMATS, MemoryConfig
from ..model import WAN22_TI2V_5B, WanConfig
from ..types import LatentShape, PixelShape

Where = Literal["resident", "swapped", "offloaded"]

BLOCK_FRAMES = 8
# Of a number in bf16, which all formats are computed in.
BYTES = 2
# Per weight of the blocks' linear layers, best first; NVFP4 is 4 bits and an 8-bit scale for every 16 of them.
WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.5625}
# CUDA context and what the allocator cannot reuse: 0.8 to 1.2 GB, estimated.
CONTEXT = 1_000_000_000
# Taken by the desktop and other programs: 0.3 to 1.0 GB, estimated.
DISPLAY = 500_000_000
# umt5-xxl as an fp8 file. It is used before the film begins, so it never stands beside the rest.
TEXT_ENCODER = 6_700_000_000
# Tensors of all tokens alive at the height of a pass, beside two hidden layers of the feed-forward: 4 traced.
STREAMS = 6
# Blocks of float32 latents that a sampler of four steps has about it: 6 traced with two steps.
LATENTS = 10


@dataclass(frozen=True, slots=True)
class Decoder:
    """A VAE in bf16: bytes of its weights and, per latent cell, of its streaming cache and of decoding one frame."""

    weights: int
    cache: int
    transient: int


# Traced with ComfyUI 0.33's decoders: Wan2.2's, the same with a quarter of the decoder's channels, and taew2_2.
VAES = {
    "full": Decoder(weights=1_409_377_336, cache=913_600, transient=1_048_768),
    "light": Decoder(weights=369_210_040, cache=228_544, transient=262_336),
    "tiny": Decoder(weights=22_836_216, cache=768, transient=56_928),
}


@dataclass(frozen=True, slots=True)
class Part:
    """resident: on the card all the time. swapped: on it when the model is not. offloaded: in host memory."""

    name: str
    bytes: int
    where: Where = "resident"


@dataclass(frozen=True, slots=True)
class Budget:
    """A film to be made, and the card to make it on.

    vram: bytes. size: (height, width) in pixels. window: latent frames that are remembered. sequential: the VAE
    decodes after the film is sampled and the model has left the card. guidance: other than 1, with a second memory.
    streamed: layers of the model that wait in host memory and are copied at each pass.
    Raises ValueError for names that are not there and for sizes and windows that cannot be.
    """

    vram: int
    size: tuple[int, int]
    weights: str = "bf16"
    kv_format: str = "bf16"
    window: int = 32
    vae: str = "full"
    sequential: bool = False
    guidance: bool = False
    streamed: int = 0
    model: WanConfig = WAN22_TI2V_5B

    def __post_init__(self) -> None:
        named = (
            ("weights", self.weights, WEIGHT_BYTES),
            ("kv_format", self.kv_format, KV_FORMATS),
            ("vae", self.vae, VAES),
        )
        for name, value, known in named:
            if value not in known:
                raise ValueError(f"{name} '{value}' is not known; choose one of {', '.join(known)}")
        if not 0 <= self.streamed <= self.model.num_layers:
            raise ValueError(
                f"streamed {self.streamed}: the model has {self.model.num_layers} layers to keep off the card"
            )
        self.memory.check(self.block.frames)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that the film takes. Decoder and activations never live together, but the allocator may keep both."""
        memory, block = self.memory, self.block
        branches = 2 if self.guidance else 1
        whole = weight_bytes(self.model, self.weights)
        away = layer_bytes(self.model, self.weights) * self.streamed
        # Two layers on the way: one computes while the next one comes.
        staging = min(self.streamed, 2) * layer_bytes(self.model, self.weights)
        vae, cells = VAES[self.vae], block.height * block.width
        place: Where = "swapped" if self.sequential else "resident"
        kept = memory.bytes(self.model, block, branches=branches)
        scratch = memory.scratch_bytes(self.model, block) + weight_scratch_bytes(self.model, self.weights)
        parts = (
            Part(f"weights, {self.weights}", whole - away + staging),
            Part("weights in host memory", away, "offloaded"),
            Part(f"KV of {self.window} frames, {self.kv_format}", kept),
            Part("dequantisation scratch", scratch),
            Part("activations", activation_bytes(self.model, block)),
            Part("prompt keys", prompt_bytes(self.model, prompts=1 + branches)),
            Part(f"VAE weights, {self.vae}", vae.weights, place),
            Part("VAE streaming cache", vae.cache * cells, place),
            Part("VAE transient", vae.transient * cells, place),
            Part("text encoder, fp8", TEXT_ENCODER, "offloaded"),
            Part("context, slack, display", CONTEXT + DISPLAY),
        )
        return tuple(part for part in parts if part.bytes)

    @property
    def total(self) -> int:
        """Bytes of the card at the height of the film. What is swapped comes when the model has left."""
        stays = sum(part.bytes for part in self.parts if part.where == "resident")
        swapped = sum(part.bytes for part in self.parts if part.where == "swapped")
        return max(stays, swapped + CONTEXT + DISPLAY)

    @property
    def fits(self) -> bool:
        return self.total <= self.vram

    @property
    def memory(self) -> MemoryConfig:
        """What is kept; sinks are part of the window, so they change no byte."""
        return MemoryConfig(self.window, sink=0, kv_format=self.kv_format)

    @property
    def block(self) -> LatentShape:
        """Of one block. Raises ValueError for a size that is not a multiple of 32."""
        return PixelShape(1, 1, *self.size).latent.with_frames(BLOCK_FRAMES)


def layer_bytes(model: WanConfig, weights: str) -> int:
    """One of the blocks: ten linear layers, of which the matrices are quantised, four RMS norms, a norm, modulation."""
    matrices = 8 * model.dim**2 + 2 * model.dim * model.ffn_dim
    rows = 9 * model.dim + model.ffn_dim
    scales = 4 * rows if weights == "fp8" else 0
    return int(matrices * WEIGHT_BYTES[weights]) + scales + BYTES * (rows + 12 * model.dim)


def weight_bytes(model: WanConfig, weights: str) -> int:
    """The transformer: its blocks in the format; embeddings, time projection and head in bf16."""
    dim, features = model.dim, prod(model.patch) * model.channels
    embeddings = (features + 1) * dim + (model.text_dim + 1 + dim + 1) * dim + (model.freq_dim + 1 + dim + 1) * dim
    others = embeddings + 6 * (dim + 1) * dim + (dim + 1) * features + 2 * dim
    return layer_bytes(model, weights) * model.num_layers + BYTES * others


def weight_scratch_bytes(model: WanConfig, weights: str) -> int:
    """Two of the largest matrices decoded, where the card has no matrix product for the format."""
    return 0 if weights == "bf16" else 2 * BYTES * model.dim * model.ffn_dim


def activation_bytes(model: WanConfig, block: LatentShape, number: int = BYTES) -> int:
    """Of one pass over a block: the feed-forward's hidden layer before and after GELU, `STREAMS` and `LATENTS`.

    number: bytes of one, here and in `prompt_bytes`.
    """
    down, across = model.grid(block.height, block.width)
    tokens = block.batch * block.frames * down * across
    return tokens * (
        number * (2 * model.ffn_dim + STREAMS * model.dim) + LATENTS * 4 * prod(model.patch) * model.channels
    )


def prompt_bytes(model: WanConfig, prompts: int, number: int = BYTES) -> int:
    """Cross-attention keys and values of the prompts in use; the last shot's are still there when the next begins."""
    return prompts * model.num_layers * 2 * model.text_len * model.dim * number
