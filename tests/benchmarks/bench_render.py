"""Memory, seconds per block and frames per second of films of increasing length.

    python tests/benchmarks/bench_render.py            films of 20 s, 2 min and 20 min (half an hour on two cores)
    python tests/benchmarks/bench_render.py --quick    films of 4, 8 and 16 s

Each row runs in a separate process, so that it has its own peak memory. `streamed` renders a script to mp4, like
`longlive render`. `full cache` uses the same model, decoder and writer with a KV cache of the whole film; its cost
grows with the square of the length, so its film is short (`--full-cache`, 2 min). `decoded whole` decodes all latents
in one call; its memory grows with the length, so its film is short too (`--whole`, 20 s). Nothing is measured if a
check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from longlive.longlive_core.evaluation.recorded import REFERENCE_RUNS
from longlive.longlive_core.evaluation.verify import verify_file
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.memory.prompts import PromptCache
from longlive.longlive_core.mini import LATENT_SIZE, Mini, load_mini
from longlive.longlive_core.model import KeyValue, KVCache, Projected, Rope
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.write_film import Progress, Render
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.sampling.noise import block_noise
from longlive.longlive_core.sampling.unipc import unipc
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.types import BLOCK_FRAMES, FPS, TIME_FACTOR, Block, LatentShape, video_frames
from longlive.longlive_core.vae import DecodeStream
from process_memory import memory_mb
from torch import Tensor

CAPTIONS = (
    "a big red ring sways on the left in front of a striped navy wall",
    "it bobs in the middle against a plain wine wall",
    "the same hero circles at the top in front of a checked forest background",
    "the hero rests on the right against a striped grey wall",
)
SHOT_BLOCKS = 6
BLOCK_SECONDS = TIME_FACTOR * BLOCK_FRAMES / FPS
MARKS = (5, 50, 500)
CHECKED_RUNS = ("generate_cfg3.safetensors", "generate_roll8.safetensors", "vae_a.safetensors")
MEMORY = MemoryConfig(kv_format="float32")

Row = dict[str, Any]


def model() -> tuple[Mini, str]:
    """LongLive Mini and "trained", or if its files are missing a model of random weights and "random"."""
    try:
        return load_mini(), "trained"
    except FileNotFoundError:
        mini = Mini.random(0)
        torch.nn.init.normal_(mini.model.head.head.weight, std=0.05)
        return mini, "random"


def block_count(seconds: float) -> int:
    """Number of blocks in a film of `seconds`."""
    return max(1, round(seconds / BLOCK_SECONDS))


def script(seconds: float) -> str:
    """A script of `seconds`, with shots of six blocks."""
    left, lines = block_count(seconds), list[str]()
    while left > 0:
        count = min(SHOT_BLOCKS, left)
        lines.append(f"Shot {len(lines) + 1} ({count} blocks): {CAPTIONS[len(lines) % len(CAPTIONS)]}")
        left -= count
    return "\n".join(lines) + "\n"


class FullCache:
    """A `KVCache` without a window: K/V of the whole film, which are concatenated and attended to in each call.

    clean: whether to store the K/V of the current call.
    """

    def __init__(self, layers: int) -> None:
        self.stored: list[KeyValue | None] = [None] * layers
        self.clean = False

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`."""
        return torch_attention(q.rotated(rope), *self._join(layer, k.rotated(rope), v))

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """See `KVCache.store`."""
        self._join(layer, k.rotated(rope), v)

    def _join(self, layer: int, k: Tensor, v: Tensor) -> KeyValue:
        past = self.stored[layer]
        joined = KeyValue(k, v) if past is None else KeyValue(torch.cat((past.k, k), 1), torch.cat((past.v, v), 1))
        if self.clean:
            self.stored[layer] = joined
        return joined


@torch.inference_mode()
def full_cache_film(mini: Mini, plan: BlockPlan, steps: int = 4, seed: int = 0) -> Iterator[Block]:
    """Generates a film with a `FullCache`."""
    net, schedule, cache = mini.model, unipc(steps), FullCache(mini.model.config.num_layers)
    kv: KVCache = cache
    prompts = PromptCache(mini.encode_text, net.text_kv, torch_attention)
    shape = LatentShape(1, net.config.channels, plan.block_frames, *LATENT_SIZE)
    cuts = list(accumulate(int(block.cut) for block in plan.blocks))
    for block in plan.blocks:
        frames = range(block.start, block.start + block.frames)
        positions = torch.tensor([MEMORY.position(frame, cuts[block.index]) for frame in frames], dtype=torch.float64)
        text, noise = prompts.kv(block.prompt), block_noise(seed)(block, shape)
        x, flows, cache.clean = noise, list[Tensor](), False
        for t in schedule.timesteps:
            flows.append(net(x, torch.full((1, block.frames), float(t)), text, kv, positions))
            x = schedule.advance(noise, flows)
        cache.clean = True
        net.write_kv(x, torch.zeros(1, block.frames), text, kv, positions)
        yield Block(block, x)


def streamed_row(seconds: float, folder: Path) -> Row:
    """Renders a script to mp4."""
    mini, _ = model()
    (folder / "script.txt").write_text(script(seconds))
    clock = Clock()
    job = Job(
        RenderSettings(folder / "script.txt", folder / "film.mp4", memory=MEMORY, take=False),
        mini=mini,
        on_progress=clock.tick,
    )
    return clock.row(job.run)


def full_cache_row(seconds: float, folder: Path) -> Row:
    """Generates a film with a `FullCache` and writes it."""
    mini, _ = model()
    plan = ShotScript.parse(script(seconds)).plan()
    clock = Clock()
    film = Render(plan, mini.vae, folder / "film.mp4", size=LATENT_SIZE, on_progress=clock.tick)
    return clock.row(lambda: film.run(full_cache_film(mini, plan)))


def whole_row(seconds: float, _: Path) -> Row:
    """Decodes random latents in one call."""
    mini, _ = model()
    frames = BLOCK_FRAMES * block_count(seconds)
    latents = torch.randn(1, mini.model.config.channels, frames, *LATENT_SIZE)

    def decode() -> None:
        with torch.inference_mode():
            decode_whole(mini, latents)

    clock = Clock()
    clock.frames = video_frames(frames)
    return clock.row(decode)


def streamed_frames(mini: Mini, pieces: Sequence[Tensor]) -> Tensor:
    """All video frames, `[T, H, W, 3]` uint8, decoded by the streaming decoder.

    pieces: latents `[1, C, F, H, W]`.
    """
    stream = DecodeStream(mini.vae)
    for piece in pieces:
        stream.feed(piece)
    return torch.cat(stream.flush())


def decode_whole(mini: Mini, latents: Tensor) -> Tensor:
    """All video frames, `[T, H, W, 3]` uint8, decoded from latents `[1, C, F, H, W]` in one call."""
    video = mini.vae.reconstruct(mini.vae.denormalise(latents))
    return video[0].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 3, 0)


class Clock:
    """Measures when each block is sampled, decoded, encoded and written, and the memory of the process."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}
        self.frames = 0

    def tick(self, progress: Progress) -> None:
        """Records that a block is written."""
        self.ends[progress.block.index] = perf_counter()
        self.frames = progress.video_frames

    def row(self, work: Callable[[], object]) -> Row:
        """Runs `work` and returns its measurements."""
        before, began = memory_mb("VmHWM"), perf_counter()
        work()
        took = perf_counter() - began
        blocks = [end - start for start, end in pairwise([began, *self.ends.values()])]
        return {
            "frames": self.frames,
            "seconds": took,
            "fps": self.frames / took,
            "base_mb": before,
            "peak_mb": memory_mb("VmHWM"),
            "block_seconds": {str(mark): seconds_at(blocks, mark) for mark in MARKS},
        }


def seconds_at(blocks: Sequence[float], mark: int) -> float | None:
    """Median seconds of the five blocks around block `mark`, counted from 1; None if the film is shorter."""
    return median(blocks[mark - 3 : mark + 2]) if len(blocks) >= mark else None


def failed_checks(golden: Path) -> list[str]:
    """Checks the code before it is measured; returns a message for each check that fails.

    golden: folder of recorded runs.
    """
    mini, _ = model()
    failed: list[str] = []
    for name in CHECKED_RUNS:
        result = verify_file(golden / name)
        if result.verdict != "ok":
            failed.append(f"{name}: {result.verdict} {result.note} (output {result.output_error})")
    plan = ShotScript.parse(script(4)).plan()
    ours = list(generate(mini.model, plan, mini.encode_text, MEMORY, size=LATENT_SIZE))
    full = list(full_cache_film(mini, plan))
    latents, other = (torch.cat([block.latents for block in film], dim=2) for film in (ours, full))
    error = ((latents - other).norm() / other.norm()).item()
    if not error < 1e-5:
        failed.append(f"while the film fits into the window, both KV caches must agree; they differ by {error:.1e}")
    whole, pieces = (
        streamed_frames(mini, latents.split(latents.shape[2], 2)),
        streamed_frames(mini, latents.split(3, 2)),
    )
    if not torch.equal(whole, pieces):
        failed.append("the streaming decoder gives other frames for latents in pieces than for all latents at once")
    with torch.inference_mode():
        step = (pieces.int() - decode_whole(mini, latents).int()).abs().max().item()
    if step > 1:  # one call sums in another order, so that a pixel may be rounded to the next level
        failed.append(f"the streaming decoder differs by {step} levels from decoding in one call")
    return failed


ROWS: dict[str, Callable[[float, Path], Row]] = {
    "streamed": streamed_row,
    "full cache": full_cache_row,
    "decoded whole": whole_row,
}


def measure(kind: str, seconds: float, threads: int) -> Row:
    """Measures one row in a separate process."""
    command = [sys.executable, __file__, "--row", kind, "--seconds", str(seconds), "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"kind": kind, "seconds_asked": seconds, **json.loads(done.stdout.splitlines()[-1])}


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    head = f"{'':14}{'film':>9}{'peak MB':>10}{'of the film':>12}{'frames/s':>10}"
    lines = [head + "".join(f"{f's at block {mark}':>16}" for mark in MARKS)]
    for row in rows:
        marks = "".join(
            f"{'-' if (value := row['block_seconds'][str(m)]) is None else f'{value:.3f}':>16}" for m in MARKS
        )
        own, length = row["peak_mb"] - row["base_mb"], row["frames"] / FPS
        lines.append(f"{row['kind']:14}{length:>7.0f} s{row['peak_mb']:>10.0f}{own:>12.0f}{row['fps']:>10.1f}{marks}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="films of 4, 8 and 16 s, to test that it works")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[20, 120, 1200], help="lengths of the streamed films"
    )
    parser.add_argument("--full-cache", type=float, default=120, help="length of the film with a full KV cache")
    parser.add_argument("--whole", type=float, default=20, help="length of the film that is decoded in one call")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--golden", type=Path, default=REFERENCE_RUNS, help="folder of recorded runs")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(ROWS[args.row](args.seconds[0], Path(folder))))
        return 0
    failed = failed_checks(args.golden)
    if failed:
        print("nothing was measured, because these checks failed:", *failed, sep="\n  ")
        return 1
    lengths = ([4.0, 8.0, 16.0], 16.0, 8.0) if args.quick else (args.seconds, args.full_cache, args.whole)
    seconds, full_cache, whole = lengths
    plan = [*(("streamed", s) for s in seconds), ("full cache", full_cache), ("decoded whole", whole)]
    rows = [measure(kind, length, args.threads) for kind, length in plan]
    peaks = [row["peak_mb"] for row in rows if row["kind"] == "streamed"]
    facts = {
        "weights": model()[1],
        "peak_growth": max(peaks) / min(peaks) - 1,
        "threads": args.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(table(rows))
    print(f"peak memory grows by {facts['peak_growth']:.1%} over all lengths")
    print(json.dumps({**facts, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
