"""The arms of `bench_pass.py`: weights, KV cache, attention and kernels of a transformer pass."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from bench_kernels import CUDA
from kernel_cases import DEVICE
from longlive.kernels import use_backend
from longlive.kernels.registry import Choice
from longlive.longlive_core.memory import FilmKVCache, MemoryConfig, PoolShape
from longlive.longlive_core.memory.prompts import PromptCache
from longlive.longlive_core.model import WAN22_TI2V_5B, CausalWan, WanConfig
from longlive.longlive_core.model.attention import Attention, default_attention, torch_attention
from longlive.longlive_core.model.linears import quantize_linears
from longlive.longlive_core.sampling.unipc import unipc
from longlive.longlive_core.types import BlockSpec, LatentShape
from pass_baselines import CompiledLayers, RollingCache
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

SLOTS = 4
FILM_BLOCKS = 1 << 20  # more than the window, so that the window limits the KV cache


@dataclass(frozen=True)
class Size:
    """A model and the shape of its blocks: `latent` height and width, and number of latent frames."""

    config: WanConfig
    latent: tuple[int, int]
    frames: int

    @property
    def block(self) -> LatentShape:
        """Shape of a block of one film."""
        return LatentShape(1, self.config.channels, self.frames, *self.latent)


FIVE_B = Size(WAN22_TI2V_5B, (44, 80), 8)
# Fewer tokens without CUDA, because Triton's interpreter takes seconds for each pass.
TOY = Size(
    WanConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=2, freq_dim=32, text_dim=32, text_len=16),
    (16, 16) if CUDA else (2, 4),
    2,
)


@dataclass(frozen=True)
class Arm:
    """One configuration of a pass.

    adds: description of the change. copies: use the copy-and-roll cache. blocks: time whole blocks too.
    """

    name: str
    adds: str
    weights: Literal["bf16", "fp8", "nvfp4"] = "bf16"
    kv: str = "bf16"
    copies: bool = False
    attention: Literal["flash", "default", "best"] = "best"
    compiled: bool = False
    kernels: Choice = "auto"
    blocks: bool = False

    @property
    def not_run(self) -> str | None:
        """Why the arm cannot run on this machine, or None."""
        if self.name == "b2" and not CUDA:
            return "cuDNN needs CUDA"
        if self.weights == "fp8" and CUDA and torch.cuda.get_device_capability() < (8, 9):
            return "this GPU has no FP8 units"
        return None

    @property
    def not_timed(self) -> str | None:
        """Why the arm is compared and not timed on this machine, or None."""
        return "Triton runs in its interpreter" if self.kernels == "auto" and not CUDA else None


LADDER = (
    Arm("a", "copy-and-roll cache, FlashAttention", copies=True, attention="flash", kernels="eager", blocks=True),
    Arm("b", "a + ring slots, torch's default attention", attention="default", kernels="eager", blocks=True),
    Arm("b2", "b + cuDNN attention first", kernels="eager"),
    Arm("c", "b2 + torch.compile of every layer", compiled=True, kernels="eager", blocks=True),
    Arm("d", "b2 + Triton kernels: ours", blocks=True),
    Arm("e", "d + FP8 linears (W8A8)", weights="fp8", blocks=True),
    Arm("f", "d + NVFP4 weights", weights="nvfp4"),
    Arm("g", "d + KV in FP8", kv="fp8"),
    Arm("h", "d + KV in NVFP4", kv="nvfp4"),
    Arm("eg", "e + g", weights="fp8", kv="fp8"),
    Arm("eh", "e + h", weights="fp8", kv="nvfp4"),
    Arm("fg", "f + g", weights="nvfp4", kv="fp8"),
    Arm("fh", "f + h: the least memory", weights="nvfp4", kv="nvfp4", blocks=True),
)
ARMS = {arm.name: arm for arm in LADDER}
EXACT = Arm("exact", "b in float32", kv="float32", attention="default", kernels="eager")


class PassRunner:
    """Runs passes and blocks of one arm with its model and KV cache. All arms have the same weights, text and noise.

    kernels: replaces the arm's backend.
    """

    def __init__(self, arm: Arm, size: Size, compiled: CompiledLayers, kernels: Choice | None = None) -> None:
        self.model = random_model(size.config, arm)
        self.noise = torch.randn(size.block.as_tuple(), device=DEVICE)
        self._size = size
        self._kernels: Choice = kernels or arm.kernels
        self._compiled = compiled if arm.compiled else None
        if self._compiled is not None:
            self._compiled.wrap_layers(self.model)
        self._cache = self._make_cache(arm)
        self._block = BlockSpec(0, 0, "a", False, None, 0, size.frames)

    @torch.no_grad()
    def flow(self, x: Tensor, t: float) -> Tensor:
        """Runs one denoising pass of the current block. x and the result: `[1, C, F, H, W]`, the result in float32."""
        self._cache.begin(self._block)
        flow = x
        with self._backend():
            for text, kv in self._cache.calls(self._block, clean=False):
                flow = self.model(x.to(self.model.dtype), self._times(t), text, kv, self._positions())
        return flow.float()

    @torch.no_grad()
    def write_kv(self, x: Tensor) -> None:
        """Runs the clean pass of the current block on `x`, `[1, C, F, H, W]`, and goes on to the next block."""
        self._cache.begin(self._block)
        with self._backend():
            for text, kv in self._cache.calls(self._block, clean=True):
                self.model.write_kv(x.to(self.model.dtype), self._times(0), text, kv, self._positions())
        self._cache.end(self._block)
        index = self._block.index + 1
        self._block = BlockSpec(index, 0, "a", False, None, index * self._size.frames, self._size.frames)

    def step(self) -> None:
        """Runs one denoising pass on noise."""
        self.flow(self.noise, 999)

    def block(self, steps: int) -> None:
        """Samples a whole block like `Generation`, without making noise and without the check for NaN."""
        schedule, x, flows = unipc(steps), self.noise, list[Tensor]()
        for t in schedule.timesteps:
            flows.append(self.flow(x, t))
            x = schedule.advance(self.noise, flows)
        self.write_kv(x)

    def fill(self) -> None:
        """Writes blocks until the window is full."""
        for _ in range(SLOTS):
            self.write_kv(self.noise)

    def _make_cache(self, arm: Arm) -> FilmKVCache | RollingCache:
        config, shape = self._size.config, self._size.block
        text: Tensor = torch.randn(config.text_len, config.text_dim, device=DEVICE).to(self.model.dtype)
        attention = ATTENTION[arm.attention]
        if not arm.copies:
            memory = MemoryConfig(window=SLOTS * shape.frames, sink=shape.frames, kv_format=arm.kv)
            return FilmKVCache(self.model, memory, shape, FILM_BLOCKS, lambda _: text, attention)
        grid = config.grid(shape.height, shape.width)
        pool = PoolShape.of(config, batch=1, slots=SLOTS, block_tokens=shape.frames * grid[0] * grid[1])
        with torch.no_grad():
            prompt = PromptCache(lambda _: text, self.model.text_kv, attention).kv("a")
        return RollingCache(pool, prompt, self.model.dtype, self.model.device)

    @contextmanager
    def _backend(self) -> Generator[None]:
        with ExitStack() as stack:
            stack.enter_context(use_backend(self._kernels))
            if self._compiled is not None:
                stack.enter_context(self._compiled.eager_ops())
            yield

    def _times(self, t: float) -> Tensor:
        return torch.full((1, self._size.frames), float(t), device=DEVICE)

    def _positions(self) -> Tensor:
        return torch.arange(
            self._block.start, self._block.start + self._block.frames, dtype=torch.float64, device=DEVICE
        )


def random_model(config: WanConfig, arm: Arm) -> CausalWan:
    """A model of random weights in the arm's format, allocated on the device.

    Modulation weights are large, so that an error of attention changes the flow noticeably.
    """
    torch.manual_seed(0)
    model = CausalWan(config, device=DEVICE, dtype=torch.bfloat16).requires_grad_(False)
    for name, value in model.named_parameters():
        if name.endswith("modulation"):
            value.normal_(std=0.5)
        elif name.endswith(("self_attn.norm_q.weight", "self_attn.norm_k.weight")):
            value.fill_(1.5)
    if arm.weights != "bf16":
        quantize_linears(model, arm.weights)
    return model.float() if arm.kv == "float32" else model


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention-2, as in the reference. q, k, v and the result: `[B, L, H, D]`."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return torch_attention(q, k, v)


ATTENTION: dict[str, Attention] = {
    "flash": flash_attention,
    "default": torch_attention,
    "best": default_attention(torch.device(DEVICE)),
}
