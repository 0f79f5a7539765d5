"""Runs passes and blocks of an arm of the ladder."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import torch
from longlive.kernels import use_backend
from longlive.kernels.registry import Choice
from longlive.longlive_core.memory import FilmKVCache, MemoryConfig, PoolShape
from longlive.longlive_core.memory.prompts import PromptCache
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.linears import quantize_linears
from longlive.longlive_core.sampling.unipc import unipc
from longlive.longlive_core.types import BlockSpec
from torch import Tensor

from .arms import FILM_BLOCKS, SLOTS, Arm, Size
from .attentions import attention_of_model
from .compiled_layers import CompiledLayers
from .rolling_cache import RollingCache
from .timing import DEVICE

Compiled = Callable[[], CompiledLayers]
"""Makes the compiled layers, or returns those that it made: torch.compile takes seconds to import."""


class PassRunner:
    """Runs passes and blocks of one arm with its model and KV cache. All arms have the same weights, text and noise.

    compiled: called by arms that need it. kernels: replaces the arm's backend. Raises Skipped for FP8 attention that
    the gate of a film lets into no layer.
    """

    def __init__(self, arm: Arm, size: Size, compiled: Compiled, kernels: Choice | None = None) -> None:
        self.model = random_model(size.config, arm)
        self.noise = torch.randn(size.block.as_tuple(), device=DEVICE)
        self._size = size
        self._kernels: Choice = kernels or arm.kernels
        self._compiled = compiled() if arm.compiled else None
        if self._compiled is not None:
            self._compiled.wrap_layers(self.model)
        self.attention = attention_of_model(self.model, arm.attention)
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
        attention = self.attention.function
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
