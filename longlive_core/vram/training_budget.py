"""The VRAM that training of a LoRA by teacher forcing takes, computed from shapes without allocating anything.

What does not follow from shapes was traced: steps of small models (width 384 and 768, 1 to 4 layers, 1 to 6 blocks,
feed-forward of 2, 4.7 and 8 times the width) ran on a CPU in bf16, and the peak of the bytes of live tensors was
recorded. No training on a card has been measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

from ..memory import Window
from ..model import WAN22_TI2V_5B, WanConfig
from ..types import BLOCK_FRAMES, LatentShape, PixelShape, latent_frames
from .advice import Change
from .budget import (
    BF16_BYTES,
    CONTEXT,
    DISPLAY,
    LIVE_LATENTS,
    WEIGHT_BYTES,
    Part,
    weight_bytes,
    weight_scratch_bytes,
)

FLOAT32_BYTES = 4
# Numbers per token at the peak of a layer's backward pass: multiples of the model's width and of the feed-forward's.
LIVE_WIDTHS, LIVE_FFN = 35, 5
# Numbers per token that a layer keeps for its backward pass if it is not computed again there.
SAVED_WIDTHS, SAVED_FFN = 28, 3
# Copies of K and V that each block attends to, at the peak; their gradients are as large, but not alive all at once.
COPIES = 1.5
# Widths of numbers per prompt token: keys and values of a layer, and what their backward pass needs.
PROMPT_WIDTHS = 8
SMALL_SIDE = 0.75  # of the sides of a film, for advice


@dataclass(frozen=True, slots=True)
class TrainingBudget:
    """The VRAM of training a LoRA on a card, in bf16 with a frozen base.

    vram: bytes of the card. size: (height, width) in pixels. frames: video frames of a clip, in whole blocks for each
    of its `shots`. rank: of the LoRA. weights: format of the base. offload: the moments of the optimiser are in host
    memory. checkpointing: activations are computed again in the backward pass. clips: in a part of a batch. window:
    latent frames that a block attends to, itself included. loaded: bytes of the base if it is loaded already, else 0.
    overhead: bytes of other things on the card. number: bytes of a number of the activations.

    Raises ValueError for an unknown format, an impossible size, and for numbers that are not positive.
    """

    vram: int
    size: tuple[int, int]
    frames: int = 65
    shots: int = 1
    rank: int = 32
    weights: str = "bf16"
    offload: bool = False
    checkpointing: bool = True
    clips: int = 1
    window: int = 32
    loaded: int = 0
    overhead: int = CONTEXT + DISPLAY
    model: WanConfig = WAN22_TI2V_5B
    number: int = BF16_BYTES

    def __post_init__(self) -> None:
        if self.weights not in WEIGHT_BYTES:
            raise ValueError(f"weights '{self.weights}' is not known; choose one of {', '.join(WEIGHT_BYTES)}")
        for name in ("frames", "shots", "rank", "clips"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} {value} must be at least 1")
        _ = self.latents

    @property
    def blocks(self) -> int:
        """Blocks of a clip: enough for its frames, and at least one for each shot."""
        return max(self.shots, ceil(latent_frames(self.frames) / BLOCK_FRAMES))

    @property
    def latents(self) -> LatentShape:
        """Shape of the clean latents of a batch. Raises ValueError if the size is not a multiple of 32."""
        return PixelShape(self.clips, 1, *self.size).latent.with_frames(BLOCK_FRAMES * self.blocks)

    @property
    def tokens(self) -> int:
        """Tokens of a pass: of all noisy blocks, and of all clean ones but the last."""
        return self.clips * (2 * self.blocks - 1) * self._block_tokens

    @property
    def prompts(self) -> int:
        """Distinct prompts of a batch at most: that of a cut, and that of the blocks after it."""
        return self.clips * min(self.blocks, 2 * self.shots - 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the budget, without empty ones."""
        dim, layers, lora = self.model.dim, self.model.num_layers, lora_numbers(self.model, self.rank)
        saved = SAVED_WIDTHS * dim + SAVED_FFN * self.model.ffn_dim
        live = LIVE_WIDTHS * dim + LIVE_FFN * self.model.ffn_dim
        kept, working = (layers * dim, live) if self.checkpointing else (layers * saved, live - saved)
        prompt = PROMPT_WIDTHS * (1 if self.checkpointing else layers)
        scratch = 0 if self.weights == "bf16" else weight_scratch_bytes(self.model, self.weights)
        parts = (
            Part(f"base, {self.weights}", self.loaded or weight_bytes(self.model, self.weights)),
            Part("dequantisation scratch", scratch),
            # The weights are cast to bf16 in each layer, and the casts are kept for the step.
            Part(f"LoRA of rank {self.rank}, gradients", lora * (2 * FLOAT32_BYTES + self.number)),
            Part("moments of AdamW", lora * 2 * FLOAT32_BYTES, "offloaded" if self.offload else "resident"),
            Part("activations kept", self.number * self.tokens * kept),
            Part("activations of one layer", self.number * self.tokens * working),
            Part("copies of K and V", int(COPIES * self.number * 2 * self._copied_tokens * dim)),
            Part("prompt K and V", self.number * self.prompts * self.model.text_len * dim * prompt),
            Part("latents, noise, flow", self.tokens * LIVE_LATENTS * FLOAT32_BYTES * self._features),
            Part("context, slack, display", self.overhead),
        )
        return tuple(part for part in parts if part.bytes)

    @property
    def total(self) -> int:
        """Peak bytes on the card."""
        return sum(part.bytes for part in self.parts if part.placement == "resident")

    @property
    def fits(self) -> bool:
        """Whether the card holds the run."""
        return self.total <= self.vram

    def changes(self) -> Iterator[list[Change]]:
        """For each setting that can be changed, its changes from mild to strong. Settings with little loss come first.

        The base, once it is loaded, is not changed.
        """
        if not self.checkpointing:
            yield [Change("activation checkpointing (--checkpointing)", {"checkpointing": True})]
        if not self.offload:
            yield [Change("AdamW in host memory (--offload)", {"offload": True})]
        if self.clips > 1:
            yield [Change("one clip in a part of a batch (--clips 1)", {"clips": 1})]
        formats = list(WEIGHT_BYTES)
        smaller = [] if self.loaded else formats[formats.index(self.weights) + 1 :]
        if smaller:
            yield [Change(f"{name} base", {"weights": name}) for name in smaller]
        if self.rank > 16:
            yield [Change("rank 16", {"rank": 16})]
        counts = range(self.blocks - 1, self.shots - 1, -1)
        if counts:
            yield [Change(f"clips of {n} blocks (--blocks {n})", {"frames": _frames(n)}) for n in counts]
        side = tuple(max(32, int(SMALL_SIDE * side) // 32 * 32) for side in self.size)
        if side != self.size:
            yield [Change(f"size {side[0]}x{side[1]}", {"size": side})]
        if self.shots > 1:
            yield [Change("clips of one shot, one block", {"frames": _frames(1), "shots": 1})]

    @property
    def _block_tokens(self) -> int:
        down, across = self.model.grid(self.latents.height, self.latents.width)
        return BLOCK_FRAMES * down * across

    @property
    def _features(self) -> int:
        return prod(self.model.patch) * self.model.channels

    @property
    def _copied_tokens(self) -> int:
        """Tokens of the keys that are joined for all blocks: each row of a block gets its own copy of its history."""
        window, copied = Window(max(1, self.window // BLOCK_FRAMES), sinks=0, shot_sink=False), 0
        for block in range(self.blocks):
            window.begin(block)
            copied += len(window.attended()) * (1 if block == self.blocks - 1 else 2)
            window.end(cut=False)
        return self.clips * copied * self._block_tokens


def lora_numbers(model: WanConfig, rank: int) -> int:
    """Weights of a LoRA on all linear layers of the blocks: rank · (in + out) of each."""
    return rank * model.num_layers * (8 * 2 * model.dim + 2 * (model.dim + model.ffn_dim))


def _frames(blocks: int) -> int:
    return 1 + 4 * (BLOCK_FRAMES * blocks - 1)
