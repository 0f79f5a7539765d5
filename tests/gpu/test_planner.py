"""The planner against the allocator: a small model makes a film at full size, and the peak is what was planned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import BlockSpec
from longlive.longlive_core.vram.budget import Budget
from longlive.longlive_core.vram.planner import GIB

pytestmark = pytest.mark.gpu

SIZE = (704, 1280)
CONFIG = WanConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=8, freq_dim=256, text_dim=64, text_len=64)
# Above the plan: rounding of allocations and what attention keeps beside its result. Below: fused kernels make fewer
# tensors than the eager ones that the plan was traced with, and a plan must not be below what is needed.
MOST, LEAST = 1.05, 0.7


def planned(budget: Budget, *names: str) -> int:
    """Bytes of the parts whose names begin so."""
    return sum(part.bytes for part in budget.parts if part.name.startswith(names))


def film(model: CausalWan, kv_format: str, blocks: int) -> None:
    """Makes and forgets a film of so many blocks at full size."""
    plan = BlockPlan(tuple(BlockSpec(i, 0, "a", False, None, 8 * i, 8) for i in range(blocks)), 24.0, 8)
    text = torch.zeros(4, CONFIG.text_dim)
    latent = (SIZE[0] // 16, SIZE[1] // 16)
    for _ in generate(model, plan, lambda _: text, MemoryConfig(kv_format=kv_format), size=latent, steps=2):
        pass


@pytest.fixture
def model(cuda: torch.device) -> Iterator[CausalWan]:
    """The small model, its weights as large as planned."""
    before = torch.cuda.memory_allocated(cuda)
    made = CausalWan(CONFIG, device=cuda, dtype=torch.bfloat16).requires_grad_(False)
    weights = torch.cuda.memory_allocated(cuda) - before
    assert weights == pytest.approx(planned(Budget(GIB, SIZE, model=CONFIG), "weights"), rel=0.02)
    yield made


@pytest.mark.parametrize("kv_format", ["bf16", "fp8", "nvfp4"])
def test_the_peak_is_the_plan_s(model: CausalWan, cuda: torch.device, kv_format: str) -> None:
    """Memory, scratch, activations and prompt keys at the height of a film are those planned, within the margin."""
    film(model, kv_format, 1)  # self-tests, compilation and the libraries' workspaces, which stay and are slack
    torch.cuda.synchronize(cuda)
    before = torch.cuda.memory_allocated(cuda)
    torch.cuda.reset_peak_memory_stats(cuda)
    film(model, kv_format, 5)
    measured = torch.cuda.max_memory_allocated(cuda) - before
    budget = Budget(GIB, SIZE, kv_format=kv_format, model=CONFIG)
    plan = planned(budget, "KV", "dequantisation", "activations", "prompt")
    assert LEAST * plan <= measured <= MOST * plan, f"planned {plan / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB"
