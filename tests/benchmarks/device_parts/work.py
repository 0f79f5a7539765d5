"""The work of a pass of the 5B model at 704x1280 with a full window, counted by running the code on the meta device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from longlive.kernels import eager
from longlive.kernels.registry import Op
from longlive.longlive_core.memory import FilmKVCache, MemoryConfig
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.model.linears import quantize_linears
from longlive.longlive_core.types import BlockSpec
from longlive.longlive_core.vae import VAEConfig, WanVAE
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .arms import FILM_BLOCKS, FIVE_B, SLOTS
from .kernel_cases import CASES
from .op_case import FIVE_B as OP_SIZE
from .tiny import TinyDecoder

META = torch.device("meta")
SQUARE = "dequantize_nvfp4 square"
"""Dequantising a matrix of width times width; its case has one of the feed-forward."""


@dataclass(frozen=True)
class Work:
    """What one pass does.

    products: FLOP of linear layers. attention: FLOP over the window. text_attention: FLOP over the prompt. calls: of
    each op, by the name of its case in `kernel_cases`. outputs: numbers that the linear layers write.
    """

    products: float
    attention: float
    text_attention: float
    calls: Counter[str]
    outputs: int


@cache
def pass_work(weights: str = "bf16", kv: str = "bf16") -> Work:
    """The work of a denoising pass with weights and K/V in a format.

    All layers but the first do the same work, so that two runs with one and with two layers tell that of all.
    """
    one, two = (_traced(weights, kv, layers) for layers in (1, 2))
    more = FIVE_B.config.num_layers - 1
    calls = Counter({name: one.calls[name] + more * (two.calls[name] - one.calls[name]) for name in two.calls})
    return Work(
        one.products + more * (two.products - one.products),
        one.attention + more * (two.attention - one.attention),
        one.text_attention + more * (two.text_attention - one.text_attention),
        calls,
        one.outputs + more * (two.outputs - one.outputs),
    )


def _traced(weights: str, kv: str, layers: int) -> Work:
    """The work of a pass of a model with this number of layers."""
    size, text_flops, flops = FIVE_B, [0.0], [0.0]
    config = replace(size.config, num_layers=layers)
    model = CausalWan(config, device=META, dtype=torch.bfloat16).requires_grad_(False)
    grid = config.grid(*size.latent)
    on_tokens = linears(model)
    outputs = sum(layer.out_features for layer in on_tokens) * size.frames * grid[0] * grid[1]
    if weights == "fp8":
        quantize_linears(model, weights)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG001
        work = 4.0 * q.shape[1] * k.shape[1] * q.shape[2] * q.shape[3]
        (text_flops if k.shape[1] == config.text_len else flops)[0] += work
        return torch.empty_like(q)

    memory = MemoryConfig(window=SLOTS * size.frames, sink=size.frames, kv_format=kv)
    text = torch.empty(config.text_len, config.text_dim, device=META, dtype=torch.bfloat16)
    cache = FilmKVCache(model, memory, size.block, FILM_BLOCKS, lambda _: text, attend)
    x = torch.empty(size.block.as_tuple(), device=META, dtype=torch.bfloat16)
    times = torch.empty(1, size.frames, device=META)
    for index in range(SLOTS + 1):
        block = BlockSpec(index, 0, "a", False, None, index * size.frames, size.frames)
        cache.begin(block)
        (call,) = cache.calls(block, clean=False)
        if index < SLOTS:
            cache.end(block)
    flops[0] = text_flops[0] = 0.0
    with torch.no_grad(), counted_ops() as calls, FlopCounterMode(display=False) as counter:
        model(x, times, *call, cache.positions(block, 0))
    if weights == "nvfp4":
        # `NVFP4Linear` dequantises in each call; quantising so many weights takes the meta device minutes.
        calls.update(case_of("dequantize_nvfp4", (None, tuple(layer.weight.shape))) for layer in on_tokens)
    return Work(counter.get_total_flops(), flops[0], text_flops[0], calls, outputs)


def linears(model: CausalWan) -> list[torch.nn.Linear]:
    """The linear layers that a pass runs on the tokens: all of the blocks but the prompt's keys and values."""
    found = [(name, layer) for name, layer in model.blocks.named_modules() if isinstance(layer, torch.nn.Linear)]
    return [layer for name, layer in found if not name.endswith(("cross_attn.k", "cross_attn.v"))]


class counted_ops:
    """Counts the calls of ops while it is open, by the name of their case."""

    def __enter__(self) -> Counter[str]:
        self.calls = Counter[str]()
        run: Callable[..., Any] = Op.__call__

        def counted(op: Op[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self.calls[case_of(op.name, args)] += 1
            return run(op, *args, **kwargs)

        self._patch = patch.object(Op, "__call__", counted)
        self._patch.start()
        return self.calls

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def case_of(name: str, args: tuple[Any, ...]) -> str:
    """The name of an op's case in `kernel_cases`, which for some depends on the arguments."""
    if name == "quantize_fp8_rows" and args[0].shape[-1] == FIVE_B.config.dim:
        return f"{name} {FIVE_B.config.dim}"
    if name == "dequantize_nvfp4" and args[1][0] == args[1][1]:
        return SQUARE
    if name == "read_nvfp4" and len(args) > 6 and args[6] is not None:
        return f"{name} centred"
    return f"{name} mse" if name == "quantize_nvfp4" else name


@cache
def case_bytes(name: str) -> int:
    """Bytes that a case of an op must read and write once."""
    case = CASES[name](replace(OP_SIZE, device="meta"))
    return sum(part.nbytes for part in (*case.reads, *case.run(eager)))


@cache
def decoder_flops(name: str) -> float:
    """FLOP of the tiny or the full decoder for one video frame in the middle of a film."""
    with META:
        decoder = TinyDecoder() if name == "tiny" else WanVAE(VAEConfig(mean=(0.0,) * 48, std=(1.0,) * 48))
    latent = torch.empty(1, FIVE_B.config.channels, 1, *FIVE_B.latent, device=META)
    state: Any = None
    with torch.no_grad():
        for _ in range(2):
            _, state = decoder.decode_chunk(latent, state)
        # PyTorch does not count the product that adds in place.
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flops}) as counter:
            decoder.decode_chunk(latent, state)
    return counter.get_total_flops() / 4


def _addmm_flops(_: torch.Size, a: torch.Size, b: torch.Size, **__: object) -> int:
    """FLOP of a product `[M, K]` by `[K, N]`, by their shapes."""
    return 2 * a[0] * a[1] * b[1]
