"""What a film costs as it gets longer: memory, seconds a block, frames a second.

    python tests/benchmarks/bench_render.py            20 s, 2 min and 20 min films (half an hour on two cores)
    python tests/benchmarks/bench_render.py --quick    4, 8 and 16 s films

Every row is a process of its own, so that peaks do not mix. `streamed` is the product: script to mp4. `all kept` is the
same model, decoder and writer with a plain cache of the whole clip, attended whole; its cost grows with the square of
the length, so its film is capped (`--kept`, 2 min). `decoded whole` decodes a film's latents in one call; its memory
grows with the length, so it is capped too (`--whole`, 20 s). Nothing is measured on a red gate.
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
from longlive.longlive_core.evaluation.verify import verify_file
from longlive.longlive_core.memory import MemoryConfig, PromptCache
from longlive.longlive_core.mini import LATENT_SIZE, Mini, load_mini
from longlive.longlive_core.model import KeyValue, KVCache, Projected, Rope
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.write_film import Progress, Render
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.sampling.noise import block_noise
from longlive.longlive_core.sampling.unipc import unipc
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.types import Block, LatentShape
from longlive.longlive_core.vae import DecodeStream
from torch import Tensor

CAPTIONS = (
    "a big red ring sways on the left in front of a striped navy wall",
    "it bobs in the middle against a plain wine wall",
    "the same hero circles at the top in front of a checked forest background",
    "the hero rests on the right against a striped grey wall",
)
SHOT_BLOCKS = 6
BLOCK_SECONDS = 32 / 24
MARKS = (5, 50, 500)
GOLDEN_CASES = ("generate_multishot3.safetensors", "generate_roll8.safetensors", "vae_a.safetensors")
MEMORY = MemoryConfig(kv_format="float32")

Row = dict[str, Any]


def model() -> tuple[Mini, str]:
    """The shipped model, else random weights of its shape, which cost the same."""
    try:
        return load_mini(), "trained"
    except FileNotFoundError:
        mini = Mini.random(0)
        torch.nn.init.normal_(mini.model.head.head.weight, std=0.05)
        return mini, "random"


def script(seconds: float) -> str:
    """Shots of six blocks, until `seconds` are full."""
    left, lines = max(1, round(seconds / BLOCK_SECONDS)), list[str]()
    while left > 0:
        count = min(SHOT_BLOCKS, left)
        lines.append(f"Shot {len(lines) + 1} ({count} blocks): {CAPTIONS[len(lines) % len(CAPTIONS)]}")
        left -= count
    return "\n".join(lines) + "\n"


class WholeClip:
    """The plain cache: every key and value since the film began, joined anew in every call and attended whole."""

    def __init__(self, layers: int) -> None:
        self.kept: list[KeyValue | None] = [None] * layers
        self.clean = False

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        return torch_attention(q.rotated(rope), *self._join(layer, k.rotated(rope), v))

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        self._join(layer, k.rotated(rope), v)

    def _join(self, layer: int, k: Tensor, v: Tensor) -> KeyValue:
        past = self.kept[layer]
        joined = KeyValue(k, v) if past is None else KeyValue(torch.cat((past.k, k), 1), torch.cat((past.v, v), 1))
        if self.clean:
            self.kept[layer] = joined
        return joined


@torch.inference_mode()
def all_kept(mini: Mini, plan: BlockPlan, steps: int = 4, seed: int = 0) -> Iterator[Block]:
    """The film with nothing forgotten."""
    net, schedule, memory = mini.model, unipc(steps), WholeClip(mini.model.config.num_layers)
    kv: KVCache = memory
    prompts = PromptCache(mini.encode_text, net.text_kv, torch_attention)
    shape = LatentShape(1, net.config.channels, plan.block_frames, *LATENT_SIZE)
    cuts = list(accumulate(int(block.cut) for block in plan.blocks))
    for block in plan.blocks:
        frames = range(block.start, block.start + block.frames)
        positions = torch.tensor([MEMORY.position(frame, cuts[block.index]) for frame in frames], dtype=torch.float64)
        text, noise = prompts.kv(block.prompt), block_noise(seed)(block, shape)
        x, flows, memory.clean = noise, list[Tensor](), False
        for t in schedule.timesteps:
            flows.append(net(x, torch.full((1, block.frames), float(t)), text, kv, positions))
            x = schedule.advance(noise, flows)
        memory.clean = True
        net.write_kv(x, torch.zeros(1, block.frames), text, kv, positions)
        yield Block(block, x)


def streamed_row(seconds: float, folder: Path) -> Row:
    mini, _ = model()
    (folder / "script.txt").write_text(script(seconds))
    clock = Clock()
    job = Job(
        RenderSettings(folder / "script.txt", folder / "film.mp4", memory=MEMORY, take=False),
        mini=mini,
        on_progress=clock.tick,
    )
    return clock.row(job.run)


def kept_row(seconds: float, folder: Path) -> Row:
    mini, _ = model()
    plan = ShotScript.parse(script(seconds)).plan()
    clock = Clock()
    film = Render(plan, mini.vae, folder / "film.mp4", size=LATENT_SIZE, on_progress=clock.tick)
    return clock.row(lambda: film.run(all_kept(mini, plan)))


def whole_row(seconds: float, _: Path) -> Row:
    mini, _ = model()
    frames = max(1, round(seconds / BLOCK_SECONDS)) * 8
    latents = torch.randn(1, 48, frames, *LATENT_SIZE)

    def decode() -> None:
        with torch.inference_mode():
            decode_whole(mini, latents)

    clock = Clock()
    clock.frames = 1 + 4 * (frames - 1)
    return clock.row(decode)


def streamed_frames(mini: Mini, pieces: Sequence[Tensor]) -> Tensor:
    """All video frames `[T, H, W, 3]`, decoded as the product does."""
    stream = DecodeStream(mini.vae)
    for piece in pieces:
        stream.feed(piece)
    return torch.cat(stream.flush())


def decode_whole(mini: Mini, latents: Tensor) -> Tensor:
    """All video frames at once, `[T, H, W, 3]` uint8, by the same rule as the stream."""
    video = mini.vae.reconstruct(mini.vae.denormalise(latents))
    return video[0].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 3, 0)


class Clock:
    """Seconds of every block, end to end: sampled, decoded, encoded and written."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}
        self.frames = 0

    def tick(self, progress: Progress) -> None:
        self.ends[progress.block.index] = perf_counter()
        self.frames = progress.video_frames

    def row(self, work: Callable[[], object]) -> Row:
        """Runs the work and measures it."""
        before, began = peak_memory(), perf_counter()
        work()
        took = perf_counter() - began
        ends = [began, *self.ends.values()]
        blocks = [late - early for early, late in pairwise(ends)]
        return {
            "frames": self.frames,
            "seconds": took,
            "fps": self.frames / took,
            "base_mb": before,
            "peak_mb": peak_memory(),
            "block_seconds": {str(mark): at(blocks, mark) for mark in MARKS},
        }


def at(blocks: Sequence[float], mark: int) -> float | None:
    """Median of the five blocks around the mark (counted from 1); None where the film is shorter."""
    return median(blocks[mark - 3 : mark + 2]) if len(blocks) >= mark else None


def peak_memory() -> float:
    """Peak resident memory of this process in MB (10^6 bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this system does not tell peak memory in /proc/self/status")


def red_gates(golden: Path | None) -> list[str]:
    """What is wrong with the code that is to be measured; empty for nothing."""
    mini, _ = model()
    red: list[str] = []
    for name in GOLDEN_CASES if golden is not None else ():
        result = verify_file(golden / name)
        if result.verdict != "ok":
            red.append(f"{name}: {result.verdict} {result.note} (output {result.output_error})")
    plan = ShotScript.parse(script(4)).plan()
    ours = list(generate(mini.model, plan, mini.encode_text, MEMORY, size=LATENT_SIZE))
    plain = list(all_kept(mini, plan))
    latents, other = (torch.cat([block.latents for block in film], dim=2) for film in (ours, plain))
    error = ((latents - other).norm() / other.norm()).item()
    if not error < 1e-5:
        red.append(f"inside the window both ways of remembering must agree; they differ by {error:.1e}")
    whole, pieces = (
        streamed_frames(mini, latents.split(latents.shape[2], 2)),
        streamed_frames(mini, latents.split(3, 2)),
    )
    if not torch.equal(whole, pieces):
        red.append("a film fed to the decoder in pieces differs from the film fed whole")
    with torch.inference_mode():
        step = (pieces.int() - decode_whole(mini, latents).int()).abs().max().item()
    if step > 1:  # one call over all frames sums in another order, which may round to the neighbouring level
        red.append(f"a streamed film differs by {step} levels from the film decoded in one call")
    return red


ROWS: dict[str, Callable[[float, Path], Row]] = {
    "streamed": streamed_row,
    "all kept": kept_row,
    "decoded whole": whole_row,
}


def measure(kind: str, seconds: float, threads: int) -> Row:
    """One row in a process of its own."""
    words = [sys.executable, __file__, "--row", kind, "--seconds", str(seconds), "--threads", str(threads)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return {"kind": kind, "asked": seconds, **json.loads(done.stdout.splitlines()[-1])}


def table(rows: Sequence[Row]) -> str:
    head = f"{'':14}{'film':>9}{'peak MB':>10}{'of it film':>12}{'frames/s':>10}"
    lines = [head + "".join(f"{f's at block {mark}':>16}" for mark in MARKS)]
    for row in rows:
        marks = "".join(
            f"{'-' if (value := row['block_seconds'][str(m)]) is None else f'{value:.3f}':>16}" for m in MARKS
        )
        own = row["peak_mb"] - row["base_mb"]
        lines.append(
            f"{row['kind']:14}{row['frames'] / 24:>7.0f} s{row['peak_mb']:>10.0f}{own:>12.0f}{row['fps']:>10.1f}{marks}"
        )
    return "\n".join(lines)


def golden_folder(asked: Path | None) -> Path | None:
    """Where the recorded runs are, as the tests find them."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "golden"
    folder = asked or Path(os.environ.get("LONGLIVE_GOLDEN", beside))
    return folder if folder.is_dir() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4, 8 and 16 s, to see that it works")
    parser.add_argument("--seconds", type=float, nargs="+", default=[20, 120, 1200], help="lengths of streamed films")
    parser.add_argument("--kept", type=float, default=120, help="length of the film with nothing forgotten")
    parser.add_argument("--whole", type=float, default=20, help="length of the film that is decoded whole")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--golden", type=Path, help="folder of recorded runs (LONGLIVE_GOLDEN)")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(ROWS[args.row](args.seconds[0], Path(folder))))
        return 0
    golden = golden_folder(args.golden)
    red = red_gates(golden)
    if red:
        print("nothing is measured on a red gate:", *red, sep="\n  ")
        return 1
    seconds, kept, whole = ([4.0, 8.0, 16.0], 16.0, 8.0) if args.quick else (args.seconds, args.kept, args.whole)
    plan = [*(("streamed", s) for s in seconds), ("all kept", kept), ("decoded whole", whole)]
    rows = [measure(kind, length, args.threads) for kind, length in plan]
    peaks = [row["peak_mb"] for row in rows if row["kind"] == "streamed"]
    facts = {
        "weights": model()[1],
        "golden": "green" if golden else "not at hand",
        "flat": max(peaks) / min(peaks) - 1,
        "threads": args.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(table(rows))
    print(f"peak memory over all lengths: +{facts['flat']:.1%}; recorded runs: {facts['golden']}")
    print(json.dumps({**facts, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
