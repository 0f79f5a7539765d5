"""The VRAM that each part of a film takes, computed from shapes without allocating anything.

Figures that do not follow from shapes were traced: the code ran on torch's meta device at 704x1280 and 480x832, and the
peak of the bytes of live tensors was recorded. They grow with the size of a latent frame, so they are given per cell of
a latent frame, 16x16 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from ..memory import KV_FORMATS, MemoryConfig
from ..model import WAN22_TI2V_5B, WanConfig
from ..parallel import check_size
from ..sampling.seam import OVERLAP
from ..types import BLOCK_FRAMES, LatentShape, PixelShape
from ..units import plural
from .graph_budget import decoder_graph_bytes, pass_graph_bytes

Placement = Literal["resident", "swapped", "offloaded", "other card"]
"""resident: on the card during the whole film. swapped: on the card while the model is not. offloaded: in host memory.
other card: on one that samples nothing.
"""

# Bytes of a bf16 number, the dtype of activations whatever the format of the weights.
BF16_BYTES = 2
# Bytes per weight of the blocks' linear layers, best format first. NVFP4: 4 bits, and an 8-bit scale per 16 weights.
WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.5625}
# The CUDA context and fragmentation of the allocator: 0.8 to 1.2 GB, estimated.
CONTEXT = 1_000_000_000
# The desktop and other programs: 0.3 to 1.0 GB, estimated.
DISPLAY = 500_000_000
# umt5-xxl as an fp8 file. It is used before sampling starts, so it does not add to the peak.
TEXT_ENCODER = 6_700_000_000
# Live tensors `[B, L, dim]` at the peak of a pass, besides two hidden layers of the feed-forward: 4 traced.
LIVE_TENSORS = 6
# Live blocks of float32 latents in a sampler of four steps: 6 traced with two steps.
LIVE_LATENTS = 10


@dataclass(frozen=True, slots=True)
class DecoderBytes:
    """A VAE in bf16: bytes of its weights and, per latent cell, of its streaming state and beside it.

    first: beside the state while the first latent frame of a film is decoded. transient: while a later one is, with the
    latents that a stream keeps.
    """

    weights: int
    cache: int
    first: int
    transient: int


# Traced with our decoder for Wan2.2's, and for the same with a quarter of its channels, and with ComfyUI's taew2_2.
# ComfyUI's own decoder for Wan2.2's, which an AMD card runs there, takes 131,072 bytes more a cell.
VAES = {
    "full": DecoderBytes(weights=1_409_377_336, cache=913_600, first=196_704, transient=921_536),
    "light": DecoderBytes(weights=369_210_040, cache=228_544, first=49_248, transient=233_408),
    "tiny": DecoderBytes(weights=22_836_216, cache=10_752, first=67_584, transient=77_152),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a budget."""

    name: str
    bytes: int
    placement: Placement = "resident"


@dataclass(frozen=True, slots=True)
class Budget:
    """The VRAM of a film with given settings on a given card.

    vram: bytes of the card. size: (height, width) in pixels. window: latent frames in the KV cache. sequential: the
    VAE decodes after sampling, when the model is off the card. guidance: other than 1, with a second KV cache. align:
    `seam: align`, which samples 9 latent frames for each continuing block of 8. recalled: blocks that a shot recalls;
    they take slots of the window beside the usual sinks, and no memory of their own.
    streamed: number of layers of the model that stay in host memory and are copied to the card in each pass. ranks:
    cards like this one that share each block; the bytes are those of the one with the most. decoder: where the VAE is.
    split: as many cards have the other branch of guidance, see `SplitModel`.
    graphs: CUDA graphs of passes and decoder, see `graph_budget`.
    Raises ValueError for unknown formats and VAEs, and for impossible sizes, windows and numbers of layers.
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
    align: bool = False
    recalled: int = 0
    ranks: int = 1
    decoder: Placement = "resident"
    split: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        for name, known in (("weights", WEIGHT_BYTES), ("kv_format", KV_FORMATS), ("vae", VAES)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} '{value}' is not known; choose one of {', '.join(known)}")
        if not 0 <= self.streamed <= self.model.num_layers:
            raise ValueError(f"streamed {self.streamed} is outside 0 … {self.model.num_layers}, the model's layers")
        self.memory.check(self.block.frames)
        check_size(self.ranks, self.model.num_heads, prod(self.model.grid(self.block.height, self.block.width)))
        if self.split and not self.guidance:
            raise ValueError("without guidance there is one branch, which cannot be split; plan with guidance")
        if self.recalled > max(0, self.recallable):
            more = (self.recalled - self.recallable) * self.block.frames
            raise ValueError(
                f"{plural(self.recalled, 'recalled block')}: {self.recallable} of them fit beside the sinks in a "
                f"window of {self.window} latent frames; set window to {self.window + more} or more, or recall fewer"
            )

    @property
    def branches(self) -> int:
        """How many branches of guidance this card has."""
        return 2 if self.guidance and not self.split else 1

    @property
    def recallable(self) -> int:
        """The number of recalled blocks that fit into the window beside the usual sinks."""
        return MemoryConfig(self.window).recallable(self.block.frames)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the budget, without empty ones.

        The decoder and the activations of the model are not in use at the same time, but the allocator may keep both.
        """
        memory, block, ranks = self.memory, self.block, self.ranks
        branches = self.branches
        layer = layer_bytes(self.model, self.weights)
        # While layers are streamed, two of them are on the card: one computes and the next one is copied.
        weights = weight_bytes(self.model, self.weights) - layer * self.streamed + layer * min(self.streamed, 2)
        vae, cells = VAES[self.vae], block.height * block.width
        placement: Placement = "swapped" if self.sequential and self.decoder == "resident" else self.decoder
        kv = memory.bytes(self.model, block, branches=branches, ranks=ranks)
        scratch = memory.scratch_bytes(self.model, block, ranks=ranks) + weight_scratch_bytes(self.model, self.weights)
        parts = (
            Part(f"weights, {self.weights}", weights),
            Part("weights in host memory", layer * self.streamed, "offloaded"),
            Part(f"KV of {self.window} frames, {self.kv_format}", kv),
            Part("dequantisation scratch", scratch),
            Part("activations", activation_bytes(self.model, block, ranks=ranks)),
            Part("aligned seams", overlap_bytes(self.model, block, self.window, ranks=ranks) if self.align else 0),
            # Those of the shot and of the shot before it, and the negative prompt, which split guidance has elsewhere.
            Part("prompt KV", prompt_bytes(self.model, prompts=1 + branches)),
            Part(f"VAE weights, {self.vae}", vae.weights, placement),
            Part("VAE streaming state", vae.cache * cells, placement),
            Part("VAE transient", vae.transient * cells, placement),
            Part("text encoder, fp8", TEXT_ENCODER, "offloaded"),
            *self._graph_parts(branches, placement),
            Part("context, slack, display", CONTEXT + DISPLAY),
        )
        return tuple(part for part in parts if part.bytes)

    def _graph_parts(self, branches: int, placement: Placement) -> tuple[Part, ...]:
        """What CUDA graphs hold, if there are any.

        Passes with streamed layers or on several cards have none, nor has the tiny VAE.
        """
        block, vae, passes, decoder = self.block, VAES[self.vae], 0, 0
        if self.graphs and not self.streamed and self.ranks == 1 and not self.split:
            passes = graphs_of_passes(self.model, block, self.window, branches, align=self.align)
            passes += prompt_bytes(self.model, branches)
        if self.graphs and self.vae != "tiny":
            decoder = decoder_graph_bytes(block.height * block.width, vae.cache, vae.first)
        return Part("CUDA graphs, passes", passes), Part("CUDA graphs, decoder", decoder, placement)

    @property
    def total(self) -> int:
        """Peak bytes on the card: of the resident parts, or of the swapped parts when the model is off the card.

        Or of the card that decodes, if it takes more.
        """
        resident, *others = (
            sum(part.bytes for part in self.parts if part.placement == placement)
            for placement in ("resident", "swapped", "other card")
        )
        return max(resident, *(other + CONTEXT + DISPLAY for other in others))

    @property
    def fits(self) -> bool:
        """Whether the card holds the film."""
        return self.total <= self.vram

    @property
    def memory(self) -> MemoryConfig:
        """Settings of the KV cache. Sinks are part of the window and do not change its bytes."""
        return MemoryConfig(self.window, sink=0, kv_format=self.kv_format)

    @property
    def block(self) -> LatentShape:
        """Shape of one block. Raises ValueError if the size is not a multiple of 32."""
        return PixelShape(1, 1, *self.size).latent.with_frames(BLOCK_FRAMES)


def layer_bytes(model: WanConfig, weights: str) -> int:
    """Bytes of one transformer layer.

    Ten linear layers, whose matrices are quantised, four RMS norms, a layer norm and the modulation.
    """
    matrices = 8 * model.dim**2 + 2 * model.dim * model.ffn_dim
    rows = 9 * model.dim + model.ffn_dim
    scales = 4 * rows if weights == "fp8" else 0
    return int(matrices * WEIGHT_BYTES[weights]) + scales + BF16_BYTES * (rows + 12 * model.dim)


def weight_bytes(model: WanConfig, weights: str) -> int:
    """Bytes of the transformer: its layers in the format `weights`; embeddings, time projection and head in bf16."""
    dim, features = model.dim, prod(model.patch) * model.channels
    embeddings = (features + 1) * dim + (model.text_dim + 1 + dim + 1) * dim + (model.freq_dim + 1 + dim + 1) * dim
    others = embeddings + 6 * (dim + 1) * dim + (dim + 1) * features + 2 * dim
    return layer_bytes(model, weights) * model.num_layers + BF16_BYTES * others


def weight_scratch_bytes(model: WanConfig, weights: str) -> int:
    """Bytes of two dequantised matrices of the largest size, for cards without a matrix product in the format."""
    return 0 if weights == "bf16" else 2 * BF16_BYTES * model.dim * model.ffn_dim


def activation_bytes(model: WanConfig, block: LatentShape, number: int = BF16_BYTES, ranks: int = 1) -> int:
    """Peak bytes of activations and latents in a pass over a block.

    Those of the pass itself, and `LIVE_LATENTS`. number: bytes of one number of the activations. ranks: that share the
    tokens; each has all latents.
    """
    return _pass_bytes(model, block, number, ranks) + LIVE_LATENTS * 4 * prod(block.as_tuple())


def _pass_bytes(model: WanConfig, block: LatentShape, number: int, ranks: int = 1) -> int:
    """Peak bytes in a pass: the hidden layer of the feed-forward before and after GELU, and `LIVE_TENSORS`."""
    down, across = model.grid(block.height, block.width)
    frames = block.batch * block.frames
    return frames * ceil(down * across / ranks) * number * (2 * model.ffn_dim + LIVE_TENSORS * model.dim)


def overlap_bytes(model: WanConfig, block: LatentShape, frames: int, number: int = BF16_BYTES, ranks: int = 1) -> int:
    """Bytes that `seam: align` adds to a pass over a block: activations of the frames in front, and their K/V.

    Their K/V are not in the KV cache, so that attention reads a copy of one layer of it with them. frames: latent
    frames in the KV cache. number: bytes of one number of the activations. ranks: that share tokens and heads.
    """
    down, across = model.grid(block.height, block.width)
    tokens = block.batch * (frames + OVERLAP) * down * across
    width = ceil(model.num_heads / ranks) * model.head_dim
    return activation_bytes(model, block.with_frames(OVERLAP), number, ranks) + 2 * number * tokens * width


def prompt_bytes(model: WanConfig, prompts: int, number: int = BF16_BYTES) -> int:
    """Bytes of the cross-attention K/V of `prompts` prompts. number: bytes of one number."""
    return prompts * model.num_layers * 2 * model.text_len * model.dim * number


def graphs_of_passes(
    model: WanConfig, block: LatentShape, frames: int, branches: int, *, align: bool, number: int = BF16_BYTES
) -> int:
    """Bytes that the CUDA graphs of passes hold without their prompts, see `graph_budget`; arguments as above."""
    pool = _pass_bytes(model, block, number)
    # The embedded timestep of each latent frame, its projection, and the sum of that with a layer's modulation.
    pool += number * block.batch * block.frames * (1 + 6 + 6) * model.dim
    pool += overlap_bytes(model, block, frames, number) if align else 0
    return pass_graph_bytes(block, number, pool, branches=branches, align=align)
