"""Ablation of a pass of the 5B model at 704x1280 with a full window, and of whole blocks.

Each arm adds one change to the arm that it names. Weights are random. First each arm generates a film with a tiny
model, long enough that blocks are evicted, and the flow of each pass is compared with that of eager PyTorch with ring
slots in float32. An arm whose error is above its tolerance is not timed. Then groups of arms are visited in order and
in reverse order. In each visit an arm allocates its weights and KV cache, fills its window, warms up, and is timed with
CUDA events and with the clock. Peak memory is that of the allocator during one arm.

A block consists of N denoising passes, the sampler and the clean pass; frames per second are its video frames divided
by its time. A timed pass is in the middle of a block, so that the tokens that arm a moves at the start of each block
count in whole blocks only.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from .arms import EXACT, FIVE_B, LADDER, SLOTS, TOY, Arm, Size
from .compiled_layers import CompiledLayers
from .part import Found, Skipped, Task
from .runner import Compiled, PassRunner
from .timing import CUDA, DEVICE, abba_order, timed

# Limits of the relative L2 error of the worst pass of the tiny model: of bf16, and what quantised weights and K/V, and
# attention in FP8 add.
BF16_TOLERANCE = 2e-2
WEIGHTS_TOLERANCE = {"bf16": 0.0, "fp8": 4e-2, "nvfp4": 1e-1}
KV_TOLERANCE = {"bf16": 0.0, "fp8": 2e-2, "nvfp4": 4e-2, "q2": 1e-1}
ATTENTION_TOLERANCE = {"fp8": 4e-2}
STEPS = (4, 2)
GROUP, PASSES = 4, 4
TOY_ARMS = ("d", "e8", "a", "b", "b2", "fh")
"""Formats and caches. Without CUDA the ops of all are eager: Triton's interpreter takes half a minute for an arm."""


def tasks(toy: bool) -> list[Task]:
    """The comparison of every arm, then two visits of each."""
    return arm_tasks([arm for arm in LADDER if not toy or CUDA or arm.name in TOY_ARMS], toy)


def arm_tasks(arms: Sequence[Arm], toy: bool) -> list[Task]:
    """The comparison of some arms, then two visits of each."""
    size, passes = (TOY, 1) if toy else (FIVE_B, PASSES)

    @cache
    def tuned() -> CompiledLayers:
        torch.compiler.reset()  # the graphs of the comparison have another shape
        return CompiledLayers(tuned=not toy)

    plain = cache(partial(CompiledLayers, tuned=False))
    exact = cache(lambda: film_flows(EXACT, plain))
    checks = [Task(arm.name, partial(check, arm, exact, plain)) for arm in arms]
    visits = [Task(arm.name, partial(visit, arm, size, tuned, passes)) for arm in abba_order(arms, GROUP)]
    return [*checks, *visits]


def tolerance(arm: Arm) -> float:
    """Limit of the relative L2 error of an arm."""
    added = WEIGHTS_TOLERANCE[arm.weights] + KV_TOLERANCE[arm.kv] + ATTENTION_TOLERANCE.get(arm.attention, 0.0)
    return BF16_TOLERANCE + added


def film_flows(arm: Arm, compiled: Compiled) -> list[Tensor]:
    """Flows of a short film: of two passes of each block from the full window until two blocks have been evicted."""
    # With `auto`, an op that Triton cannot run on the device would be eager, and would be compared with itself.
    runner = PassRunner(arm, TOY, compiled, "triton" if arm.kernels == "auto" and CUDA else None)
    torch.manual_seed(1)
    flows: list[Tensor] = []
    for block in range(SLOTS + 2):
        noisy, noisier, clean = torch.randn(3, *runner.noise.shape, device=DEVICE)
        flows += [runner.flow(noisier, 999), runner.flow(noisy, 624)] if block >= SLOTS - 1 else []
        runner.write_kv(clean)
    return flows


def check(arm: Arm, exact: Callable[[], list[Tensor]], compiled: Compiled) -> Found:
    """Relative L2 of the worst pass of an arm."""
    if arm.not_run is not None:
        raise Skipped(arm.not_run)
    pairs = list(zip(film_flows(arm, compiled), exact(), strict=True))
    errors = [float((ours - expected).norm() / expected.norm()) for ours, expected in pairs]
    error, limit = max(errors, key=lambda error: (error != error, error)), tolerance(arm)
    names: dict[str, float | str] = {"adds": arm.adds, "weights": arm.weights, "KV": arm.kv}
    red = "" if error <= limit else f"error {error:.1e} is above {limit:.1e}"
    return Found({**names, "error": error, "tolerance": limit}, red=red)


def visit(arm: Arm, size: Size, compiled: Compiled, passes: int) -> Found:
    """Times one visit of an arm: passes, and whole blocks where it has them, in milliseconds."""
    clear()
    before = torch.cuda.memory_allocated() if CUDA else 0
    runner = PassRunner(arm, size, compiled)
    runner.fill()
    runner.block(2)
    runner.step()
    figures: dict[str, float | str] = {"attention": "; ".join((attention_of(runner.step), *runner.attention.notes))}
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    times = [timed(runner.step) for _ in range(passes)]
    samples = {"ms": [time.device for time in times], "clock ms": [time.wall for time in times]}
    for steps in STEPS if arm.blocks else ():
        samples[f"ms a block, {steps} steps"] = [timed(partial(runner.block, steps)).device]
    if CUDA:
        samples["peak GB"] = [(torch.cuda.max_memory_allocated() - before) / 1e9]
    return Found(figures, samples)


def attention_of(run: Callable[[], object]) -> str:
    """Names of the attention kernels of PyTorch that a run calls, as the profiler reports them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    prefix = "aten::_scaled_dot_product_"
    names = {event.key[len(prefix) :] for event in profile.key_averages() if event.key.startswith(prefix)}
    return ", ".join(sorted(name.replace("_attention", "") for name in names))


def clear() -> None:
    """Frees what the last arm or film left."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
