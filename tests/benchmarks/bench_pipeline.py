"""What running the stages of a film at the same time gains: each stage alone, then the film in each mode.

    python tests/benchmarks/bench_pipeline.py            a film of 60 s
    python tests/benchmarks/bench_pipeline.py 600        of 10 minutes

Every row is a process of its own. `denoise`, `decode` and `encode` are one stage in its thread with nothing else to do;
the modes are the product, script to mp4, without a take. `of denoise` is a row's pace over that of denoising alone;
`overlap` is how much of what could be hidden behind the longest stage is hidden: (sum of the stages - row) / (sum -
longest). `first` is when the film's first frame was written. Stages that use all cores alone have little to hide behind
each other: `--threads 1` on two cores shows what overlap gives. Nothing is measured on a red gate, and no table is
given where the modes' files are not the same to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from bench_render import BLOCK_SECONDS, MEMORY, golden_folder, model, red_gates, script
from longlive.longlive_core.mini import LATENT_SIZE, Mini
from longlive.longlive_core.pipeline.decode import QUEUE_DEPTH, decode, write
from longlive.longlive_core.pipeline.stages import MODES, Mode, Pipeline
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.write_film import Progress
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.types import Block
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.video import VideoWriter

PARTS = ("denoise", "decode", "encode")
QUARTERS = (0.25, 0.5, 0.75, 1.0)
# Real latents for the stages behind sampling, again and again where the film is longer.
SAMPLE_BLOCKS = 12

Row = dict[str, Any]


def blocks_of(seconds: float) -> int:
    return max(1, round(seconds / BLOCK_SECONDS))


def drawn(mini: Mini, seconds: float) -> Iterator[Block]:
    plan = ShotScript.parse(script(seconds)).plan()
    return generate(mini.model, plan, mini.encode_text, MEMORY, size=LATENT_SIZE)


class Watch:
    """Seconds of a row, and the memory of this process on the way; made when the work begins."""

    def __init__(self, frames: int) -> None:
        self.frames, self.began = frames, perf_counter()
        self.first: float | None = None
        self.memory: list[float] = []

    def see(self, done: int) -> None:
        """`done` video frames are through."""
        if self.first is None:
            self.first = perf_counter() - self.began
        while len(self.memory) < len(QUARTERS) and done >= QUARTERS[len(self.memory)] * self.frames:
            self.memory.append(resident_mb())

    def row(self, **more: object) -> Row:
        took = perf_counter() - self.began
        return {
            "seconds": took,
            "fps": self.frames / took,
            "first": self.first,
            "memory": self.memory,
            "frames": self.frames,
            **more,
        }


def resident_mb() -> float:
    """Memory of this process in MB (10^6 bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this system does not tell memory in /proc/self/status")


def sample_blocks(mini: Mini, seconds: float) -> list[Block]:
    return list(drawn(mini, min(seconds, SAMPLE_BLOCKS * BLOCK_SECONDS)))


def frames_of(seconds: float) -> int:
    return 32 * blocks_of(seconds) - 3


def denoise_row(seconds: float, _: Path) -> Row:
    mini, _name = model()
    blocks = drawn(mini, seconds)
    watch = Watch(frames_of(seconds))
    with Pipeline() as line:
        for block in line.stage("sampling", blocks):
            watch.see(block.spec.video_start + block.spec.video_frames)
    return watch.row()


def decode_row(seconds: float, _: Path) -> Row:
    mini, _name = model()
    sample = sample_blocks(mini, seconds)
    pieces, done = decode(islice(cycle(sample), blocks_of(seconds)), DecodeStream(mini.vae)), 0
    watch = Watch(frames_of(seconds))
    with Pipeline() as line:
        for piece in line.stage("decoding", pieces, QUEUE_DEPTH):
            done += len(piece.frames.wait())
            watch.see(done)
    return watch.row()


def encode_row(seconds: float, folder: Path) -> Row:
    mini, _name = model()
    first, *others = decode(sample_blocks(mini, seconds), DecodeStream(mini.vae))
    height, width = first.frames.frames.shape[1:3]
    pieces, done = [first, *islice(cycle(others), 8 * blocks_of(seconds) - 1)], 0
    watch = Watch(frames_of(seconds))
    with VideoWriter(folder / "film.mp4", width=width, height=height) as writer, Pipeline() as line:
        for _, frames in line.stage("writing", write(pieces, writer), QUEUE_DEPTH):
            done += len(frames)
            watch.see(done)
    return watch.row()


def film_row(seconds: float, folder: Path, mode: Mode) -> Row:
    mini, _name = model()
    (folder / "script.txt").write_text(script(seconds))
    watch = Watch(frames_of(seconds))

    def see(progress: Progress) -> None:
        watch.see(progress.video_frames)

    order = RenderSettings(folder / "script.txt", folder / "film.mp4", memory=MEMORY, take=False, decode=mode)
    job = Job(order, mini=mini, on_progress=see)
    watch.began = perf_counter()
    job.run()
    return watch.row(hash=hashlib.sha256((folder / "film.mp4").read_bytes()).hexdigest())


def film(mode: Mode) -> Callable[[float, Path], Row]:
    return lambda seconds, folder: film_row(seconds, folder, mode)


ROWS: dict[str, Callable[[float, Path], Row]] = {
    "denoise": denoise_row,
    "decode": decode_row,
    "encode": encode_row,
    **{mode: film(mode) for mode in MODES},
}


def measure(kind: str, seconds: float, threads: int) -> Row:
    """One row in a process of its own."""
    words = [sys.executable, __file__, str(seconds), "--row", kind, "--threads", str(threads)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return {"kind": kind, **json.loads(done.stdout.splitlines()[-1])}


def table(rows: Sequence[Row]) -> str:
    parts = {row["kind"]: row["seconds"] for row in rows if row["kind"] in PARTS}
    total, longest = sum(parts.values()), max(parts.values())
    quarters = "".join(f"{f'MB at {share:.0%}':>12}" for share in QUARTERS)
    lines = [f"{'':12}{'seconds':>9}{'frames/s':>10}{'of denoise':>12}{'overlap':>9}{'first s':>9}{quarters}"]
    for row in rows:
        whole = row["kind"] in MODES
        share = f"{parts['denoise'] / row['seconds']:.0%}" if whole else "-"
        overlap = f"{(total - row['seconds']) / (total - longest):.0%}" if whole else "-"
        memory = "".join(f"{megabytes:>12.0f}" for megabytes in row["memory"])
        lines.append(
            f"{row['kind']:12}{row['seconds']:>9.1f}{row['fps']:>10.1f}{share:>12}{overlap:>9}{row['first']:>9.2f}{memory}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float, nargs="?", default=60, help="length of the film (60)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="of the film (all)")
    parser.add_argument("--golden", type=Path, help="folder of recorded runs (LONGLIVE_GOLDEN)")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(ROWS[args.row](args.seconds, Path(folder))))
        return 0
    golden = golden_folder(args.golden)
    red = red_gates(golden)
    if red:
        print("nothing is measured on a red gate:", *red, sep="\n  ")
        return 1
    rows = [measure(kind, args.seconds, args.threads) for kind in (*PARTS, *args.modes)]
    if len({row["hash"] for row in rows if row["kind"] in MODES}) > 1:
        print("the modes' films differ:", *(f"{row['kind']}: {row.get('hash')}" for row in rows), sep="\n  ")
        return 1
    facts = {
        "film": frames_of(args.seconds) / 24,
        "weights": model()[1],
        "golden": "green" if golden else "not at hand",
        "threads": args.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(table(rows))
    print(json.dumps({**facts, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
