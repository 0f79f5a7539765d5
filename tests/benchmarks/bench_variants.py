"""Four films of LongLive Mini sampled at once against four films sampled alone: time and equality.

    python tests/benchmarks/bench_variants.py [--blocks 3] [--films 4] [--steps 4] [--threads 1]

The arms run in the order alone, together, together, alone in one process, so that a slow drift of the machine falls on
both; times are of sampling, without decoding and writing. Nothing is timed if a film of the batch differs from the film
alone by more than the limit.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from time import perf_counter, process_time

import torch
from longlive.longlive_core.memory import KV_FORMATS, MemoryConfig
from longlive.longlive_core.mini import LATENT_SIZE, Mini, load_mini
from longlive.longlive_core.sampling import batch_noise, block_noise, generate
from longlive.longlive_core.script import BlockPlan, ShotScript
from torch import Tensor

CAPTION = "a big red ring sways on the left in front of a striped navy wall"
LIMIT = 1e-6
ORDER = ("alone", "together", "together", "alone")


def sampled(mini: Mini, plan: BlockPlan, seeds: Sequence[int], args: argparse.Namespace) -> Tensor:
    """The latents of films of these seeds, which one generation samples, `[B, C, F, H, W]`."""
    noise = batch_noise([(block_noise(seed), plan.blocks) for seed in seeds])
    generation = generate(
        mini.model,
        plan,
        mini.encode_text,
        MemoryConfig(kv_format=args.kv_format),
        size=(args.size // 16, args.size // 16),
        steps=args.steps,
        batch=len(seeds),
        noise=noise,
        seam="align",
    )
    return torch.cat([block.latents for block in generation], dim=2)


def run_arm(arm: str, mini: Mini, plan: BlockPlan, args: argparse.Namespace) -> Tensor:
    """All films, sampled in one way."""
    seeds = range(args.films)
    if arm == "together":
        return sampled(mini, plan, seeds, args)
    return torch.cat([sampled(mini, plan, [seed], args) for seed in seeds])


def check(mini: Mini, plan: BlockPlan, args: argparse.Namespace) -> None:
    """Exits if the films of a batch are not those made alone. It warms both arms up."""
    alone, together = (run_arm(arm, mini, plan, args) for arm in ("alone", "together"))
    differences = [float((one - other).norm() / other.norm()) for one, other in zip(together, alone, strict=True)]
    print(f"equal to the bit: {torch.equal(alone, together)}; relative L2 of each film: {differences}")
    if max(differences) > LIMIT:
        raise SystemExit(f"a film of the batch differs from the film alone by more than {LIMIT}: nothing is timed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--size", type=int, default=16 * LATENT_SIZE[0], help="pixels of a side (the model's largest)")
    parser.add_argument("--kv-format", choices=list(KV_FORMATS), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    mini, plan = load_mini(), ShotScript.parse(f"Shot 1 ({args.blocks} blocks): {CAPTION}").plan()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, torch "
        f"{torch.__version__}; {args.films} films of {args.blocks} blocks, {args.size}x{args.size} pixels, "
        f"{args.steps} steps, KV {args.kv_format}"
    )
    check(mini, plan, args)
    seconds: dict[str, list[tuple[float, float]]] = {"alone": [], "together": []}
    for arm in ORDER:
        wall, cpu = perf_counter(), process_time()
        run_arm(arm, mini, plan, args)
        seconds[arm].append((perf_counter() - wall, process_time() - cpu))
        print(f"{arm:<9} {seconds[arm][-1][0]:7.2f} s, {seconds[arm][-1][1]:7.2f} s of CPU time", flush=True)
    for index, name in enumerate(("time", "CPU time")):
        alone, together = (sum(run[index] for run in seconds[arm]) for arm in ("alone", "together"))
        print(f"{name}: alone / together = {alone / together:.2f}")


if __name__ == "__main__":
    main()
