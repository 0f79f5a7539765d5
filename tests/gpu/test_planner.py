"""The VRAM plan compared with the allocator: a small model generates a film at full size."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import BLOCK_FRAMES, FPS, BlockSpec, PixelShape
from longlive.longlive_core.units import GIB
from longlive.longlive_core.vram.budget import Budget

pytestmark = pytest.mark.gpu

SIZE = (704, 1280)
CONFIG = WanConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=8, freq_dim=256, text_dim=64, text_len=64)
# Limits of measured to planned bytes. The peak may be higher, because allocations are rounded up and attention has
# temporary tensors. It may be lower, because fused kernels allocate fewer tensors than the traced eager ops.
MAX_RATIO, MIN_RATIO = 1.05, 0.7


def planned_bytes(budget: Budget, *names: str) -> int:
    """Bytes of the parts of a budget whose names start with one of `names`."""
    return sum(part.bytes for part in budget.parts if part.name.startswith(names))


def generate_film(model: CausalWan, kv_format: str, blocks: int) -> None:
    """Generates a film at full size and discards it."""
    specs = (BlockSpec(i, 0, "a", False, None, BLOCK_FRAMES * i, BLOCK_FRAMES) for i in range(blocks))
    plan = BlockPlan(tuple(specs), FPS, BLOCK_FRAMES)
    text = torch.zeros(4, CONFIG.text_dim)
    latent = PixelShape(1, 1, *SIZE).latent
    size = (latent.height, latent.width)
    for _ in generate(model, plan, lambda _: text, MemoryConfig(kv_format=kv_format), size=size, steps=2):
        pass


@pytest.fixture
def model(cuda: torch.device) -> CausalWan:
    """The small model in bf16. Its weights take the planned bytes."""
    before = torch.cuda.memory_allocated(cuda)
    model = CausalWan(CONFIG, device=cuda, dtype=torch.bfloat16).requires_grad_(False)
    weights = torch.cuda.memory_allocated(cuda) - before
    assert weights == pytest.approx(planned_bytes(Budget(GIB, SIZE, model=CONFIG), "weights"), rel=0.02)
    return model


@pytest.mark.parametrize("kv_format", ["bf16", "fp8", "nvfp4", "q2"])
def test_peak_memory_matches_the_plan(model: CausalWan, cuda: torch.device, kv_format: str) -> None:
    """The peak of KV cache, scratch buffer, activations and prompts is within the limits of the plan."""
    generate_film(model, kv_format, 1)  # allocates what stays: self-tests, compiled kernels, workspaces of libraries
    torch.cuda.synchronize(cuda)
    before = torch.cuda.memory_allocated(cuda)
    torch.cuda.reset_peak_memory_stats(cuda)
    generate_film(model, kv_format, 5)
    measured = torch.cuda.max_memory_allocated(cuda) - before
    budget = Budget(GIB, SIZE, kv_format=kv_format, model=CONFIG)
    planned = planned_bytes(budget, "KV", "dequantisation", "activations", "prompt")
    assert MIN_RATIO * planned <= measured <= MAX_RATIO * planned, f"planned {planned:,} bytes, measured {measured:,}"
